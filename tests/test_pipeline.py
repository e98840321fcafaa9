"""Whole runs: what they leave, that they go on after a kill, and what they refuse."""

import resource
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from whole_runs import (
  ROOT,
  assert_same_weights,
  contents,
  last_state,
  make_config,
  records,
  run_main,
)

from unseg_jax import pipeline, predict
from unseg_jax.runtime import progress, workdir
from unseg_jax.segmentation import train
from unseg_jax.segmentation.segmenter import Segmenter
from unseg_jax.synthesis import generate, shards

EXAMPLES = ROOT / "unseg_jax" / "pretrained" / "example"
pytestmark = pytest.mark.usefixtures("compile_quickly")
STAGES = tuple(pipeline.STAGES)
SIZES = {"train": 40, "validation": 8, "test": 8}
SCORES = {"accuracy", "iou", "f_beta", "f_max", "background_iou", "miou"}


class TestWholeRun:
  def test_leaves_a_direction_with_a_picture(self, finished):
    direction = np.load(finished / "search" / "direction.npy")
    np.testing.assert_allclose(np.linalg.norm(direction, axis=1), 1.0, rtol=1e-5)
    with Image.open(finished / "search" / "direction.png") as picture:
      assert picture.mode == "RGB"

  @pytest.mark.parametrize("split", SIZES)
  def test_leaves_a_data_set_that_tfds_reads(self, finished, split):
    source = tfds.builder_from_directory(finished / "generate").as_data_source(split)
    assert len(source) == SIZES[split]
    pairs = [source[i] for i in range(len(source))]
    assert (np.diff([pair["candidate"] for pair in pairs]) > 0).all()
    for pair in pairs:
      assert pair["image"].shape == (64, 64, 3) and pair["image"].dtype == np.uint8
      assert pair["mask"].shape == (64, 64, 1) and set(np.unique(pair["mask"])) <= {0, 255}

  def test_splits_share_no_image(self, finished):
    images = [
      record["image"].tobytes()
      for split in SIZES
      for record in shards.read(finished / "generate", split)
    ]
    assert len(set(images)) == len(images) == sum(SIZES.values())

  def test_leaves_scores_events_and_report(self, finished):
    scores = workdir.read_json(finished / "metrics.json")
    assert scores.keys() == {"synthetic"} and scores["synthetic"].keys() == SCORES
    assert all(0 <= score <= 1 for score in scores["synthetic"].values())
    assert list((finished / "events").glob("events.out.tfevents.*"))
    assert (finished / "report.html").read_text().rstrip().endswith("</html>")
    assert workdir.read_json(finished / "config.json")["train"]["steps"] == 6
    assert not list(finished.rglob("*.incomplete"))

  def test_leaves_a_segmenter(self, finished, tmp_path):
    image = EXAMPLES / "astronaut_head.png"
    with Image.open(image) as picture:
      size = picture.size
    probability = Segmenter.restore(finished)(image)
    assert probability.shape == size[::-1] and probability.dtype == np.float32
    assert 0 <= probability.min() <= probability.max() <= 1
    assert predict.predict(str(finished), str(image), str(tmp_path / "out"), False) == 0
    with Image.open(tmp_path / "out" / "astronaut_head_mask.png") as mask:
      np.testing.assert_array_equal(np.asarray(mask.convert("L")) > 127, probability > 0.5)

  def test_again_does_nothing(self, copied, config, monkeypatch):
    before = contents(copied)
    monkeypatch.setattr(progress, "bar", lambda *_, **__: pytest.fail("work was done"))
    pipeline.run(config, copied, STAGES)
    after = contents(copied)
    # config.json is written by every run.
    before.pop(Path("config.json")), after.pop(Path("config.json"))
    assert after == before

  def test_less_memory_is_no_other_result(self, copied, config):
    config.search.microbatch = 2
    config.generate.chunk = 4
    pipeline.run(config, str(copied), STAGES)
    config.generate.shard_candidates = 32
    with pytest.raises(workdir.StageMismatch, match="shard_candidates"):
      pipeline.run(config, copied, STAGES)

  def test_evaluates_folders_of_real_pictures(self, copied, config, tmp_path):
    for kind, name in (("images", "astronaut_head.png"), ("masks", "astronaut_head_mask.png")):
      (tmp_path / kind).mkdir()
      shutil.copy(EXAMPLES / name, tmp_path / kind / "head.png")
    config.evaluate.folders = (("heads", str(tmp_path / "images"), str(tmp_path / "masks"), True),)
    synthetic_scores = workdir.read_json(copied / "metrics.json")["synthetic"]
    before = {
      path: state for path, state in contents(copied).items() if path.parts[0] in STAGES[:3]
    }
    pipeline.run(config, copied, STAGES)
    scores = workdir.read_json(copied / "metrics.json")
    assert scores.keys() == {"synthetic", "heads"} and scores["heads"].keys() == SCORES
    assert scores["synthetic"] == synthetic_scores
    beside = workdir.read_json(copied / "baselines.json")
    assert beside.keys() == {"heads"}  # The synthetic set has no photographs.
    assert beside["heads"].keys() == {"all foreground", "fixed ellipse"}
    assert beside["heads"]["all foreground"]["background_iou"] == 0
    report = (copied / "report.html").read_text()
    assert "heads" in report and "Fixed ellipse" in report
    after = contents(copied)
    assert all(after[path] == state for path, state in before.items())


class TestTwoDirectionsAndRestarts:
  @pytest.fixture(scope="class")
  def searched(self, generator, tmp_path_factory):
    """A workdir after a search of two directions from two starts, and its data set."""
    folder = tmp_path_factory.mktemp("restarts")
    config = make_config(generator)
    config.search.update({"directions": 2, "restarts": 2})
    config.generate.agreement = 0.01
    pipeline.run(config, folder, ("search", "generate"))
    return folder

  def test_leaves_every_restart_in_a_table_with_a_picture(self, searched):
    rows = workdir.read_json(searched / "search" / "restarts.json")
    assert [row["restart"] for row in rows] == [0, 1]
    assert sum(row["chosen"] for row in rows) == 1
    for row in rows:
      assert {"loss", "acceptance", "agreement"} <= row.keys()
      assert (searched / "search" / f"restart-{row['restart']}.png").exists()

  def test_leaves_two_directions_and_an_animation(self, searched):
    assert np.load(searched / "search" / "direction.npy").shape == (2, 20)
    with Image.open(searched / "search" / "direction.webp") as animation:
      assert animation.n_frames > 8

  def test_the_agreement_of_light_and_dark_is_one_of_the_filters(self, searched):
    rates = workdir.read_json(searched / "generate" / "filters.json")["rates"]
    assert rates.keys() == {"area", "agreement", "all"}

  def test_another_filter_is_another_ranking(self, searched, config):
    config.search.update({"directions": 2, "restarts": 2})
    config.generate.agreement = 0.02
    with pytest.raises(workdir.StageMismatch, match=r"generate\.agreement: 0\.01 there, 0\.02 now"):
      pipeline.run(config, searched, ("search",))


class TestRefusal:
  @pytest.mark.parametrize("stages", [STAGES, ("evaluate", "report")])
  @pytest.mark.parametrize(
    ("section", "name", "there", "now"),
    [("train", "batch_size", 8, 4), ("search", "steps", 6, 7), ("generate", "shift", 5.0, 4.0)],
  )
  def test_other_settings_in_the_same_workdir(
    self, copied, config, stages, section, name, there, now
  ):
    before = contents(copied)
    config[section][name] = now
    with pytest.raises(workdir.StageMismatch) as error:
      pipeline.run(config, copied, stages)
    assert f"{section}.{name}: {there} there, {now} now" in str(error.value)
    assert contents(copied) == before

  def test_unknown_stage(self, config, tmp_path):
    with pytest.raises(ValueError, match=r"\['serch'\].*search,generate,train,evaluate,report"):
      pipeline.run(config, tmp_path / "run", ("serch", "train"))
    assert not (tmp_path / "run").exists()

  def test_missing_generator(self, config, tmp_path):
    config.generator = str(tmp_path / "absent.safetensors")
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
      pipeline.run(config, tmp_path / "run", STAGES)
    assert not (tmp_path / "run").exists()

  def test_missing_folder_of_pictures(self, config, tmp_path):
    config.evaluate.folders = (("birds", str(tmp_path / "absent"), str(tmp_path), False),)
    with pytest.raises(FileNotFoundError, match="absent"):
      pipeline.run(config, tmp_path / "run", STAGES)
    assert not (tmp_path / "run").exists()

  def test_missing_picture_of_the_report(self, config, tmp_path):
    config.report.pictures = ("example:nobody.png",)
    with pytest.raises(FileNotFoundError, match=r"nobody\.png"):
      pipeline.run(config, tmp_path / "run", STAGES)
    assert not (tmp_path / "run").exists()

  @pytest.mark.parametrize(
    ("name", "value"),
    [
      ("area", (0.5, 0.2)),
      ("rule", "colour"),
      ("shard_candidates", 12),
      ("agreement", 0.5),
      ("dtype", "float64"),
    ],
  )
  def test_impossible_settings(self, config, tmp_path, name, value):
    config.generate[name] = value
    with pytest.raises(ValueError, match=rf"config\.generate\.{name}"):
      pipeline.run(config, tmp_path / "run", STAGES)
    assert not (tmp_path / "run").exists()

  def test_stage_without_those_before_it(self, config, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'search'.*add search to --stages"):
      pipeline.run(config, tmp_path / "run", ("train",))
    assert not (tmp_path / "run" / "train").exists()

  def test_command_line(self, tmp_path):
    flags = (f"--workdir={tmp_path / 'run'}", f"--config.generator={tmp_path / 'absent'}")
    missing = run_main(*flags)
    assert missing.returncode == 1
    assert missing.stderr.strip().splitlines()[-1].startswith("error: no generator file at")
    assert "Traceback" not in missing.stderr
    misspelt = run_main(*flags, "--config.train.stepz=3")
    assert misspelt.returncode != 0
    assert "stepz" in misspelt.stderr
    assert not (tmp_path / "run").exists()


# Each kills its own process in the middle of a stage, for certain and at a known moment; the
# progress bars tell where the stages started.
KILL = """
import os, pathlib, signal, sys, time
from unseg_jax.direction import search
from unseg_jax.runtime import progress
from unseg_jax.segmentation import train
from unseg_jax.synthesis import shards

bar = progress.bar
def told(description, total, done=0, **options):
  print("bar", description, done, flush=True)
  return bar(description, total, done, **options)
progress.bar = told

def kill():
  os.kill(os.getpid(), signal.SIGKILL)
"""
KILL_IN = {
  "search": """
save = search._save
def save_and_die(*arguments):
  save(*arguments)
  kill()
search._save = save_and_die
""",
  "generate": """
write = shards.write_shard
def write_half_and_die(path, records, counts):
  if path.name.endswith("train.array_record-00001"):
    path.with_name(path.name + ".incomplete").write_bytes(records[0])
    kill()
  write(path, records, counts)
shards.write_shard = write_half_and_die
""",
  "train": """
make_segmenter = train._segmenter
def die_after_the_first_checkpoint(state, config):
  if int(state.step) > 2:
    folder = pathlib.Path(next(x for x in sys.argv if "--workdir" in x).partition("=")[2])
    while not (folder / "train" / "checkpoints" / "2").exists():
      time.sleep(0.05)
    kill()
  return make_segmenter(state, config)
train._segmenter = die_after_the_first_checkpoint
""",
}


class TestKilled:
  @pytest.fixture(scope="class")
  def bars(self):
    """Where the work of each process started, in order: (progress bar, steps already done)."""
    return []

  @pytest.fixture(scope="class")
  def resumed(self, generator, tmp_path_factory, bars):
    """A workdir whose run was killed in every stage and started again each time."""
    folder = tmp_path_factory.mktemp("killed")
    flags = (f"--config.generator={generator}", f"--workdir={folder}")
    for stage, code in KILL_IN.items():
      process = run_main(*flags, before=KILL + code)
      assert process.returncode == -signal.SIGKILL, process.stderr
      assert not workdir.read_json(folder / stage / "stage.json")["complete"]
      lines = (line.split() for line in process.stdout.splitlines() if line.startswith("bar "))
      bars.append([(" ".join(line[1:-1]), int(line[-1])) for line in lines])
      if stage == "generate":
        first_shard = shards.shard_path(folder / "generate", "train", 0)
        shard_time = first_shard.stat().st_mtime_ns
    with pytest.MonkeyPatch.context() as patch:
      bar, started = progress.bar, []

      def told(description, total, done=0, **options):
        started.append((description, done))
        return bar(description, total, done, **options)

      patch.setattr(progress, "bar", told)
      pipeline.run(make_config(generator), folder, STAGES)
    bars.append(started)
    assert first_shard.stat().st_mtime_ns == shard_time, "the first shard was made again"
    return folder

  def test_continues_from_what_was_saved(self, resumed, bars):
    assert bars[0] == [("search", 0)]
    assert bars[1] == [("search", 2), ("generate train", 0)]
    assert [name for name, _ in bars[2]] == [
      "generate train",
      "generate validation",
      "generate test",
      "train",
    ]
    assert bars[3][0] == ("train", 2)

  def test_direction_is_the_same(self, resumed, finished):
    direction, expected = (np.load(run / "search" / "direction.npy") for run in (resumed, finished))
    np.testing.assert_array_equal(direction, expected)
    histories = [workdir.read_json(run / "search" / "history.json") for run in (resumed, finished)]
    assert histories[0]["step"] == histories[1]["step"] == list(range(6))

  @pytest.mark.parametrize("split", SIZES)
  def test_data_set_is_the_same(self, resumed, finished, split):
    assert records(resumed, split) == records(finished, split)
    assert not list(resumed.rglob("*.incomplete"))

  def test_segmenter_is_the_same(self, resumed, finished):
    (step, state), (expected_step, expected) = last_state(resumed), last_state(finished)
    assert step == expected_step == 6
    assert_same_weights(state, expected)
    history = workdir.read_json(resumed / "train" / "history.json")
    assert history["Training"]["step"] == [1, 2, 3, 4, 5, 6]
    assert history["Validation"]["step"] == [2, 4, 6]
    expected_history = workdir.read_json(finished / "train" / "history.json")
    np.testing.assert_allclose(
      history["Training"]["loss"], expected_history["Training"]["loss"], rtol=1e-5
    )


class TestFailure:
  def test_full_disk(self, finished, tmp_path):
    whole = shards.shard_path(tmp_path, "train", 0)
    failed = shards.shard_path(tmp_path, "train", 1)
    some = records(finished, "train")[:16]
    assert sum(map(len, some)) > 40_000
    shards.write_shard(whole, some, {})
    before = whole.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Files may not grow beyond this: the nearest to a full disk that a test can have.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
      with pytest.raises(OSError, match=r"train\.array_record-00001.*disk space"):
        shards.write_shard(failed, some, {})
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path for path in tmp_path.iterdir() if path.is_file()] == [whole]
    assert whole.read_bytes() == before

  def test_filters_that_reject_everything(self, finished, config, tmp_path):
    shutil.copytree(finished / "search", tmp_path / "search")
    config.generate.area = (0.99, 1.0)
    config.generate.roundness = 1e-9
    with pytest.raises(generate.TooFewAccepted) as error:
      pipeline.run(config, tmp_path, ("generate",))
    message = str(error.value)
    candidates = int(message.partition("accepted of ")[2].partition(" ")[0].replace(",", ""))
    assert candidates <= 1000
    assert "area 0.0%" in message and "roundness 100.0%" in message and "all 0.0%" in message
    assert "config.generate.area" in message

  def test_loss_that_is_not_finite(self, finished, config, tmp_path, monkeypatch):
    for stage in ("search", "generate"):
      shutil.copytree(finished / stage, tmp_path / stage)
    make_step = train.make_step

    def diverging(*arguments):
      step = make_step(*arguments)

      def diverging_step(state, batch):
        new, loss = step(state, batch)
        return new, jax.numpy.where(state.step == 4, jax.numpy.nan, loss)

      return diverging_step

    monkeypatch.setattr(train, "make_step", diverging)
    with pytest.raises(FloatingPointError) as error:
      pipeline.run(config, tmp_path, ("train",))
    assert "not finite at step 4" in str(error.value)
    assert f"step 4, in {tmp_path / 'train' / 'checkpoints' / '4'}" in str(error.value)
    assert "config.train.learning_rate" in str(error.value)

  def test_loss_that_is_not_finite_before_any_checkpoint(self, finished, config, tmp_path):
    for stage in ("search", "generate"):
      shutil.copytree(finished / stage, tmp_path / stage)
    config.train.learning_rate = 1e30
    with pytest.raises(FloatingPointError, match=r"not finite at step \d.*checkpoint"):
      pipeline.run(config, tmp_path, ("train",))
