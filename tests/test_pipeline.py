"""Whole runs: what they leave, that they go on after a kill, and what they refuse."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorflow_datasets as tfds
import tiny_config
from array_record.python import array_record_module
from PIL import Image

from checkpoints_convert.convert import convert_file
from unseg_jax import checkpoints, pipeline, predict, progress, synthesis, training, workdir
from unseg_jax.data import synthetic
from unseg_jax.segmenter import Segmenter

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "unseg_jax" / "pretrained" / "example"
STAGES = tuple(pipeline.STAGES)
SIZES = {"train": 40, "validation": 8, "test": 8}
SCORES = {"accuracy", "iou", "f_beta", "f_max"}


@pytest.fixture(scope="session")
def generator(tmp_path_factory):
  output = tmp_path_factory.mktemp("generator") / "random.safetensors"
  convert_file(ROOT / "tests" / "golden" / "dcgan.pth", output, "dcgan")
  return output


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
  """Lets all runs, those in processes of their own included, share what they compile."""
  settings = {
    "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
  }
  with pytest.MonkeyPatch.context() as patch:
    for name, value in settings.items():
      patch.setenv(name.upper(), str(value))
      jax.config.update(name, value)
    yield
    jax.config.update("jax_compilation_cache_dir", None)


@pytest.fixture
def config(generator):
  return make_config(generator)


@pytest.fixture(scope="session")
def finished(generator, tmp_path_factory):
  """A workdir after a whole run that nothing disturbed; tests must not change it."""
  folder = tmp_path_factory.mktemp("finished")
  pipeline.run(make_config(generator), folder, STAGES)
  return folder


@pytest.fixture
def copied(finished, tmp_path):
  """A finished workdir of the test's own."""
  return Path(shutil.copytree(finished, tmp_path / "copied"))


def make_config(generator):
  config = tiny_config.get_config()
  config.generator = str(generator)
  return config


def contents(folder):
  """Every file and its state, to tell that nothing was touched."""
  return {
    path.relative_to(folder): (path.stat().st_mtime_ns, path.stat().st_size)
    for path in folder.rglob("*")
    if path.is_file()
  }


def records(folder, split):
  """The serialised records of a split, in order."""
  found = []
  for path in sorted((folder / "generate").glob(f"synthetic-{split}.array_record-*")):
    reader = array_record_module.ArrayRecordReader(str(path))
    found += reader.read_all()
    reader.close()
  return found


def last_state(folder):
  with checkpoints.training_manager(folder / "train" / "checkpoints", read_only=True) as manager:
    step = manager.latest_step()
    args = ocp.args.Composite(state=ocp.args.PyTreeRestore())
    return step, manager.restore(step, args=args)["state"]


def run_python(code, *arguments, **environment):
  """Runs code in a process of its own, in the repository's root."""
  path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
  return subprocess.run(
    [sys.executable, "-c", code, *map(str, arguments)],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": path, **environment},
    capture_output=True,
    text=True,
    timeout=120,
  )


def run_main(*arguments, before=""):
  """Runs `python -m unseg_jax.main` on the tiny config, after some code of the test's."""
  code = f"{before}\nimport runpy\nrunpy.run_module('unseg_jax.main', run_name='__main__')"
  return run_python(code, "--config=tests/tiny_config.py", *arguments)


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
      for record in synthetic.read(finished / "generate", split)
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
    assert "heads" in (copied / "report.html").read_text()
    after = contents(copied)
    assert all(after[path] == state for path, state in before.items())


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
    [("area", (0.5, 0.2)), ("rule", "colour"), ("shard_candidates", 12)],
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
from unseg_jax import progress, search, training
from unseg_jax.data import synthetic

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
write = synthetic.write_shard
def write_half_and_die(path, records):
  if path.name.endswith("train.array_record-00001"):
    path.with_name(path.name + ".incomplete").write_bytes(records[0])
    kill()
  write(path, records)
synthetic.write_shard = write_half_and_die
""",
  "train": """
validate = training.validate
def die_after_the_first_checkpoint(state, *arguments):
  if int(state.step) > 2:
    folder = pathlib.Path(next(x for x in sys.argv if "--workdir" in x).partition("=")[2])
    while not (folder / "train" / "checkpoints" / "2").exists():
      time.sleep(0.05)
    kill()
  return validate(state, *arguments)
training.validate = die_after_the_first_checkpoint
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
        first_shard = synthetic.shard_path(folder / "generate", "train", 0)
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
    for name in ("params", "batch_stats"):
      jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7),
        state[name],
        expected[name],
      )
    history = workdir.read_json(resumed / "train" / "history.json")
    assert history["Training"]["step"] == [1, 2, 3, 4, 5, 6]
    assert history["Validation"]["step"] == [2, 4, 6]
    expected_history = workdir.read_json(finished / "train" / "history.json")
    np.testing.assert_allclose(
      history["Training"]["loss"], expected_history["Training"]["loss"], rtol=1e-5
    )


FOUR_DEVICES = """
import pathlib, sys
import jax, tiny_config
from unseg_jax import pipeline
assert jax.device_count() == 4
config = tiny_config.get_config()
config.generator, search, generate = sys.argv[1:]
pipeline.run(config, pathlib.Path(search), ["search"])
pipeline.run(config, pathlib.Path(generate), ["generate"])
"""


class TestFourDevices:
  @pytest.fixture(scope="class")
  def four(self, finished, generator, tmp_path_factory):
    """Workdirs of four devices' search, and of four devices' data set by one device's direction."""
    folder = tmp_path_factory.mktemp("four")
    shutil.copytree(finished / "search", folder / "generate" / "search")
    process = run_python(
      FOUR_DEVICES,
      generator,
      folder / "search",
      folder / "generate",
      XLA_FLAGS="--xla_force_host_platform_device_count=4",
    )
    assert process.returncode == 0, process.stderr
    return folder

  def test_find_the_same_direction(self, four, finished):
    direction = np.load(four / "search" / "search" / "direction.npy")
    expected = np.load(finished / "search" / "direction.npy")
    print("direction: largest difference", np.abs(direction - expected).max())
    np.testing.assert_allclose(direction, expected, atol=1e-4)

  @pytest.mark.parametrize("split", SIZES)
  def test_make_the_same_data_set(self, four, finished, split):
    pairs, expected = (
      list(synthetic.read(run / "generate", split)) for run in (four / "generate", finished)
    )
    assert [pair["candidate"] for pair in pairs] == [pair["candidate"] for pair in expected]
    for name in ("image", "mask"):
      arrays = [np.stack([pair[name] for pair in run]).astype(int) for run in (pairs, expected)]
      difference = np.abs(arrays[0] - arrays[1])
      print(split, name, "largest", difference.max(), "pixels", (difference > 0).sum())
      assert difference.max() == 0


class TestFailure:
  def test_full_disk(self, finished, tmp_path):
    whole = synthetic.shard_path(tmp_path, "train", 0)
    failed = synthetic.shard_path(tmp_path, "train", 1)
    some = records(finished, "train")[:16]
    assert sum(map(len, some)) > 40_000
    synthetic.write_shard(whole, some)
    before = whole.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Files may not grow beyond this: the nearest to a full disk that a test can have.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
      with pytest.raises(OSError, match=r"train\.array_record-00001.*disk space"):
        synthetic.write_shard(failed, some)
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == [whole]
    assert whole.read_bytes() == before

  def test_filters_that_reject_everything(self, finished, config, tmp_path):
    shutil.copytree(finished / "search", tmp_path / "search")
    config.generate.area = (0.99, 1.0)
    config.generate.roundness = 1e-9
    with pytest.raises(synthesis.TooFewAccepted) as error:
      pipeline.run(config, tmp_path, ("generate",))
    message = str(error.value)
    candidates = int(message.partition("accepted of ")[2].partition(" ")[0].replace(",", ""))
    assert candidates <= 1000
    assert "area 0.0%" in message and "roundness 100.0%" in message and "all 0.0%" in message
    assert "config.generate.area" in message

  def test_loss_that_is_not_finite(self, finished, config, tmp_path, monkeypatch):
    for stage in ("search", "generate"):
      shutil.copytree(finished / stage, tmp_path / stage)
    make_step = training.make_step

    def diverging(*arguments):
      step = make_step(*arguments)

      def diverging_step(state, batch):
        new, loss = step(state, batch)
        return new, jax.numpy.where(state.step == 4, jax.numpy.nan, loss)

      return diverging_step

    monkeypatch.setattr(training, "make_step", diverging)
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
