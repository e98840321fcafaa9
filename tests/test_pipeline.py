"""Complete runs: their results and their errors."""

import shutil
from pathlib import Path

import event_files
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from whole_runs import ROOT, SIZES, contents, make_config, run_main

from unseg_jax import pipeline, predict
from unseg_jax.artifacts import stage_records
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.runtime import progress
from unseg_jax.storage import whole_files
from unseg_jax.synthesis import shards

EXAMPLES = ROOT / "unseg_jax" / "pretrained" / "example"
pytestmark = pytest.mark.usefixtures("compile_quickly")
STAGES = tuple(pipeline.STAGES)
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
    scores = whole_files.read_json(finished / "metrics.json")
    assert scores.keys() == {"synthetic"} and scores["synthetic"].keys() == SCORES
    assert np.isfinite(list(scores["synthetic"].values())).all()
    assert list((finished / "events").rglob("events.out.tfevents.*"))
    assert (finished / "report.html").read_text().rstrip().endswith("</html>")
    assert whole_files.read_json(finished / "config.json")["train"]["steps"] == 6
    assert not list(finished.rglob("*.incomplete"))

  def test_leaves_the_curves_of_every_stage(self, finished):
    events = finished / "events"
    search, train = (event_files.curves(events / stage) for stage in ("search", "train"))
    assert [step for step, _ in search["search/sobel_shift"]] == list(range(6))
    assert "search/learning_rate" in search and "search/steps_per_second" in search
    assert all(value > 0 for _, value in search["search/gradient_norm"])
    history = whole_files.read_json(finished / "train" / "history.json")["Training"]
    steps, losses = zip(*train["train/training/loss"], strict=True)
    assert list(steps) == history["step"]
    np.testing.assert_allclose(losses, history["loss"], rtol=1e-6)
    for name in ("learning_rate", "gradient_norm", "pictures_per_second", "fraction_waiting"):
      assert len(train[f"train/training/{name}"]) == 6
    assert [step for step, _ in train["train/validation/iou"]] == [2, 4, 6]
    assert event_files.pictures(events / "train") == {"train/validation/masks": [2, 4, 6]}
    for split, size in SIZES.items():
      made = event_files.curves(events / "generate" / split)
      assert made[f"generate/{split}/accepted_all"][-1] == (size, 1.0)
      assert f"generate/{split}/pairs_per_second" in made
      assert event_files.pictures(events / "generate" / split) == {f"generate/{split}/pairs": [0]}

  def test_leaves_a_segmenter(self, finished, tmp_path):
    image = EXAMPLES / "astronaut_head.png"
    with Image.open(image) as picture:
      size = picture.size
    probability = Segmenter.restore(finished)(image)
    assert probability.shape == size[::-1] and probability.dtype == np.float32
    assert predict.predict(str(finished), str(image), str(tmp_path / "out"), False) == 0
    with Image.open(tmp_path / "out" / "astronaut_head_mask.png") as mask:
      np.testing.assert_array_equal(np.asarray(mask.convert("L")) > 127, probability > 0.5)

  def test_again_does_nothing(self, copied, config, monkeypatch):
    before = contents(copied)
    monkeypatch.setattr(progress, "bar", lambda *_, **__: pytest.fail("work was done"))
    pipeline.run(config, copied, STAGES)
    after = contents(copied)
    # Every run writes config.json.
    before.pop(Path("config.json")), after.pop(Path("config.json"))
    assert after == before

  def test_less_memory_is_no_other_result(self, copied, config):
    config.search.microbatch = 2
    config.generate.chunk = 4
    pipeline.run(config, str(copied), STAGES)
    config.generate.shard_candidates = 32
    with pytest.raises(stage_records.StageMismatch, match="shard_candidates"):
      pipeline.run(config, copied, STAGES)

  def test_evaluates_folders_of_real_pictures(self, copied, config, tmp_path):
    for kind, name in (("images", "astronaut_head.png"), ("masks", "astronaut_head_mask.png")):
      (tmp_path / kind).mkdir()
      shutil.copy(EXAMPLES / name, tmp_path / kind / "head.png")
    config.evaluate.folders = (("heads", str(tmp_path / "images"), str(tmp_path / "masks"), True),)
    synthetic_scores = whole_files.read_json(copied / "metrics.json")["synthetic"]
    before = {
      path: state for path, state in contents(copied).items() if path.parts[0] in STAGES[:3]
    }
    pipeline.run(config, copied, STAGES)
    scores = whole_files.read_json(copied / "metrics.json")
    assert scores.keys() == {"synthetic", "heads"} and scores["heads"].keys() == SCORES
    assert scores["synthetic"] == synthetic_scores
    beside = whole_files.read_json(copied / "baselines.json")
    assert beside.keys() == {"synthetic", "heads"}
    counts = whole_files.read_json(copied / "image_counts.json")
    assert counts == {"synthetic": SIZES["test"], "heads": 1}
    assert beside["heads"].keys() == {"all foreground", "fixed ellipse"}
    assert beside["heads"]["all foreground"]["background_iou"] == 0
    report = (copied / "report.html").read_text()
    assert "1 labelled real image" in report and "Baseline: fixed ellipse" in report
    after = contents(copied)
    assert all(after[path] == state for path, state in before.items())


class TestTwoDirectionsAndRestarts:
  @pytest.fixture(scope="class")
  @classmethod
  def searched(cls, generator, tmp_path_factory):
    """The workdir of a search of two directions with two restarts, and its data set."""
    folder = tmp_path_factory.mktemp("restarts")
    config = make_config(generator)
    config.search.update({"directions": 2, "restarts": 2})
    config.generate.agreement = 0.01
    pipeline.run(config, folder, ("search", "generate"))
    return folder

  def test_leaves_every_restart_in_a_table_with_a_picture(self, searched):
    rows = whole_files.read_json(searched / "search" / "restarts.json")
    assert [row["restart"] for row in rows] == [0, 1]
    assert sum(row["chosen"] for row in rows) == 1
    for row in rows:
      assert {"loss", "acceptance", "agreement"} <= row.keys()
      assert (searched / "search" / f"restart-{row['restart']}.png").exists()

  def test_leaves_two_directions_and_an_animation(self, searched):
    directions = np.load(searched / "search" / "direction.npy")
    assert directions.shape == (2, 20)
    with np.load(searched / "search" / "snapshots.npz") as snapshots:
      assert snapshots["step"].tolist() == [0, 1, 3, 6]
      assert snapshots["directions"].shape == (4, 2, 20)
      np.testing.assert_array_equal(snapshots["directions"][-1], directions)
    with Image.open(searched / "search" / "direction.webp") as animation:
      assert animation.n_frames > 8

  def test_the_agreement_of_light_and_dark_is_one_of_the_filters(self, searched):
    rates = whole_files.read_json(searched / "generate" / "filters.json")["rates"]
    assert rates.keys() == {"area", "agreement", "all"}

  def test_another_filter_is_another_ranking(self, searched, config):
    config.search.update({"directions": 2, "restarts": 2})
    config.generate.agreement = 0.02
    with pytest.raises(
      stage_records.StageMismatch, match=r"generate\.agreement: 0\.01 recorded, 0\.02 now"
    ):
      pipeline.run(config, searched, ("search",))


class TestRefusal:
  @pytest.mark.parametrize("stages", [STAGES, ("evaluate", "report")])
  @pytest.mark.parametrize(
    ("section", "name", "stored", "now"),
    [("train", "batch_size", 8, 4), ("search", "steps", 6, 7), ("generate", "shift", 5.0, 4.0)],
  )
  def test_other_settings_in_the_same_workdir(
    self, copied, config, stages, section, name, stored, now
  ):
    before = contents(copied)
    config[section][name] = now
    with pytest.raises(stage_records.StageMismatch) as error:
      pipeline.run(config, copied, stages)
    assert f"{section}.{name}: {stored} recorded, {now} now" in str(error.value)
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
