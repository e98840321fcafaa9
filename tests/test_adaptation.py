"""Runs that adapt a segmenter to unlabelled images: their results and their errors."""

import itertools
import shutil
import signal

import jax
import numpy as np
import pytest
from PIL import Image
from whole_runs import assert_same_weights, contents, last_state, make_config, run_main

from unseg_jax import pipeline
from unseg_jax.adaptation import adapt
from unseg_jax.artifacts import stage_records
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.inference.views import resize_shorter_side
from unseg_jax.storage import whole_files
from unseg_jax.synthesis import shards

pytestmark = pytest.mark.usefixtures("compile_quickly")
STAGES = tuple(pipeline.STAGES)
SIZES = ((48, 72), (64, 64), (100, 70))  # Two squares, one, two.


def adapting(generator, images):
  config = make_config(generator)
  config.adapt.images = str(images)
  # After six steps the segmenter is not confident of any pixel.
  config.adapt.update({"rounds": 2, "steps": 4, "confidence": 0.0, "refine": "none"})
  return config


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
  """Creates a folder of images of several sizes, one of them in a subfolder."""
  folder = tmp_path_factory.mktemp("photographs")
  (folder / "inside").mkdir()
  random = np.random.default_rng(0)
  for number, size in enumerate(SIZES):
    image = Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8))
    image.save(folder / ("inside" if number == 1 else ".") / f"{number}.png")
  return folder


@pytest.fixture(scope="module")
def adapted(finished, generator, photographs, tmp_path_factory):
  """The finished workdir after the adaptation; tests must not change it."""
  folder = tmp_path_factory.mktemp("adapted") / "run"
  shutil.copytree(finished, folder)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(adapt, "SHARD_PICTURES", 2)
    pipeline.run(adapting(generator, photographs), folder, STAGES)
  return folder


def sizes(images):
  return [image.shape[:2] for image in images]


class TestAdaptation:
  def test_goes_on_from_the_trained_segmenter_which_stays(self, adapted, finished):
    for name in ("search", "generate", "train"):
      assert contents(adapted / name) == contents(finished / name)
    before, trained = Segmenter.restore(adapted, adapted=False), Segmenter.restore(finished)
    jax.tree.map(np.testing.assert_array_equal, before.variables, trained.variables)
    after = Segmenter.restore(adapted)
    changes = jax.tree.map(
      lambda x, y: float(np.abs(x - y).max()),
      after.variables["params"],
      trained.variables["params"],
    )
    # A few steps of Adam change the weights, but not much.
    assert 0 < max(jax.tree.leaves(changes)) < 0.05

  def test_scores_every_data_set_before_and_after(self, adapted, finished):
    scores = whole_files.read_json(adapted / "metrics.json")
    assert list(scores) == ["synthetic", "synthetic (before adapting)"]
    trained = whole_files.read_json(finished / "metrics.json")["synthetic"]
    assert scores["synthetic (before adapting)"] == trained != scores["synthetic"]
    assert "synthetic (before adapting)" in (adapted / "report.html").read_text()

  def test_real_pictures_are_scored_before_and_after(
    self, adapted, generator, photographs, tmp_path
  ):
    run, masks = tmp_path / "run", tmp_path / "masks"
    shutil.copytree(adapted, run)
    masks.mkdir()
    for number in (0, 2):
      mask = Image.new("L", SIZES[number][::-1], 255)
      mask.paste(0, (0, 0, 8, 8))
      mask.save(masks / f"{number}.png")
    config = adapting(generator, photographs)
    config.evaluate.folders = (("heads", str(photographs), str(masks), False),)
    pipeline.run(config, run, STAGES)
    names = list(whole_files.read_json(run / "metrics.json"))
    assert names[2:] == ["heads", "heads (before adapting)"]

  def test_each_round_learns_from_squares_that_the_latest_segmenter_labels(
    self, adapted, photographs
  ):
    paths = [photographs / name for name in ("0.png", "2.png", "inside/1.png")]
    images = [np.asarray(Image.open(path)) for path in paths]
    first = Segmenter.restore(adapted, adapted=False)
    made = shards.read(adapted / "adapt" / "round-1", "train")
    assert [record["candidate"] for record in made] == [0, 0, 1, 1, 2]
    small = [resize_shorter_side(image, 64) for image in images]
    masks = [
      first.probability(*pair, average=True) > 0.5
      for pair in zip(images, sizes(small), strict=True)
    ]
    expected = itertools.chain.from_iterable(map(adapt.squares, small, masks))
    for record, (image, mask) in zip(made, expected, strict=True):
      np.testing.assert_array_equal(record["mask"][..., 0] > 127, mask)
      assert np.abs(record["image"].astype(int) - image).mean() < 20  # JPEG of noise.
    again = shards.read(adapted / "adapt" / "round-2", "train")
    assert len(again) == 5
    assert any((x["mask"] != y["mask"]).any() for x, y in zip(made, again, strict=True))

  def test_again_does_nothing_also_with_moved_pictures(
    self, adapted, generator, photographs, tmp_path
  ):
    run, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(adapted, run)
    shutil.copytree(photographs, moved)
    before = contents(run / "adapt")
    pipeline.run(adapting(generator, moved), run, STAGES)
    assert contents(run / "adapt") == before
    Image.new("RGB", (9, 9)).save(moved / "0.png")
    with pytest.raises(stage_records.StageMismatch, match=r"run/adapt holds .*\n +adapt\.images: "):
      pipeline.run(adapting(generator, moved), run, STAGES)

  def test_damaged_shards_are_made_again_as_they_were(
    self, adapted, generator, photographs, tmp_path, monkeypatch
  ):
    run = tmp_path / "run"
    shutil.copytree(adapted, run)
    path = shards.shard_path(run / "adapt" / "round-2", "train", 0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    monkeypatch.setattr(adapt, "SHARD_PICTURES", 2)
    pipeline.run(adapting(generator, photographs), run, STAGES, repair=True)
    assert path.read_bytes() == whole
    assert stage_records.has_complete_stage(run / "adapt")

  def test_refuses_a_config_that_leaves_it_out(self, adapted, generator):
    with pytest.raises(
      stage_records.StageMismatch, match=r"adapt holds a result, but config\.adapt"
    ):
      pipeline.run(make_config(generator), adapted, STAGES)


KILL = """
import os, pathlib, signal, sys, time
from unseg_jax.adaptation import adapt
from unseg_jax.segmentation import train
from unseg_jax.synthesis import shards
adapt.SHARD_PICTURES = 2
"""
KILL_IN = {
  "labels": """
write = shards.write_shard
def write_and_die(path, *arguments):
  write(path, *arguments)
  os.kill(os.getpid(), signal.SIGKILL)
shards.write_shard = write_and_die
""",
  "training": """
fetch = train._fetch
folder = pathlib.Path(next(x for x in sys.argv if "--workdir" in x).partition("=")[2])
def die_in_the_second_round(state):
  saved = fetch(state)
  checkpoint = folder / "adapt" / "round-2" / "checkpoints" / "2"
  if checkpoint.parent.exists() and int(saved["step"]) > 2:
    while not checkpoint.exists():
      time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)
  return saved
train._fetch = die_in_the_second_round
""",
}


def test_killed_while_it_labels_and_while_it_trains_it_comes_to_the_same(
  adapted, copied, generator, photographs, monkeypatch
):
  config = adapting(generator, photographs)
  flags = [f"--config.adapt.{name}={value}" for name, value in config.adapt.items()]
  flags += [f"--config.generator={generator}", f"--workdir={copied}"]
  first = shards.shard_path(copied / "adapt" / "round-1", "train", 0)
  times = set()
  for code in KILL_IN.values():
    process = run_main(*flags, before=KILL + code)
    assert process.returncode == -signal.SIGKILL, process.stderr
    times.add(first.stat().st_mtime_ns)
  assert not stage_records.has_complete_stage(copied / "adapt")
  monkeypatch.setattr(adapt, "SHARD_PICTURES", 2)
  pipeline.run(config, copied, STAGES)
  assert times == {first.stat().st_mtime_ns}, "the first shard was made again"
  for number in (1, 2):
    continued, expected = (run / "adapt" / f"round-{number}" for run in (copied, adapted))
    for path in sorted(expected.glob("synthetic-*")):
      assert (continued / path.name).read_bytes() == path.read_bytes()
    (step, state), (expected_step, expected_state) = map(
      last_state, (continued.parent, expected.parent), [f"round-{number}"] * 2
    )
    assert step == expected_step == 4
    assert_same_weights(state, expected_state)


class TestRefusal:
  @pytest.mark.parametrize(
    ("name", "value"),
    [
      ("share", 0.0),
      ("share", 1.0),
      ("rounds", 0),
      ("steps", 0),
      ("confidence", 1.1),
      ("learning_rate", 0.0),
    ],
  )
  def test_settings_out_of_range(self, generator, photographs, tmp_path, name, value):
    config = adapting(generator, photographs)
    config.adapt[name] = value
    with pytest.raises(ValueError, match=rf"config\.adapt\.{name}={value}: expected"):
      pipeline.run(config, tmp_path / "run", STAGES)
    assert not (tmp_path / "run").exists()

  def test_no_pictures(self, generator, tmp_path):
    config = adapting(generator, tmp_path / "absent" / "*.png")
    with pytest.raises(FileNotFoundError, match=r"config\.adapt\.images: .*absent.*no picture"):
      pipeline.run(config, tmp_path / "run", STAGES)
    assert not (tmp_path / "run").exists()

  def test_training_pairs_made_on_the_fly(self, generator, photographs, tmp_path):
    config = adapting(generator, photographs)
    config.generate.num_images.train = 0
    with pytest.raises(ValueError, match=r"pairs on disk; set config\.generate\.num_images\.train"):
      pipeline.run(config, tmp_path / "run", STAGES)
    assert not (tmp_path / "run").exists()

  def test_the_stage_without_pictures(self, config, tmp_path):
    with pytest.raises(ValueError, match=r"cannot run the stage adapt, because config\.adapt"):
      pipeline.run(config, tmp_path / "run", ("train", "adapt"))

  def test_pictures_of_which_the_segmenter_is_not_sure(self, copied, generator, photographs):
    config = adapting(generator, photographs)
    config.adapt.confidence = 0.999
    message = (
      r"no picture reached the confidence threshold: .* between 0\.\d+ and 0\.\d+, "
      r"but config\.adapt\.confidence=0\.9"
    )
    with pytest.raises(ValueError, match=message):
      pipeline.run(config, copied, ("adapt",))
