"""The first tab: its files equal those of the predict command."""

import shutil

import numpy as np
import pytest
from PIL import Image

from unseg_jax import predict
from unseg_jax.artifacts import stage_records
from unseg_jax.demo import picture
from unseg_jax.demo import runs as runs_lib
from unseg_jax.images import reading
from unseg_jax.inference import refinement
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.storage import whole_files

pytestmark = pytest.mark.usefixtures("compile_quickly")


@pytest.fixture
def segmented(photograph):
  return picture.segment(photograph, runs_lib.SHIPPED, average=False, refine="none")


def test_the_files_are_those_that_the_command_writes(segmented, photograph, tmp_path):
  made = tmp_path / "made"
  made.mkdir()
  paths = picture.write_files(segmented, 0.5, (32, 96, 160), made)
  written = tmp_path / "written"
  status = predict.predict(
    "pretrained:faces", str(photograph), str(written), False, background="#2060a0"
  )
  assert status == 0
  pictures = sorted(written.glob("*.png"))
  assert len(pictures) == 4
  assert sorted(paths) == [str(made / path.name) for path in pictures]
  for path in pictures:
    assert (made / path.name).read_bytes() == path.read_bytes(), path.name


def _name(path):
  return path.rpartition("/")[2]


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_a_threshold_parts_the_picture_there(segmented, threshold):
  moved = picture.at_threshold(segmented.probability, threshold)
  unsure = np.isclose(segmented.probability, threshold, atol=1e-6)
  foreground = segmented.probability > threshold
  np.testing.assert_array_equal((moved > 0.5)[~unsure], foreground[~unsure])
  shown, share = picture.views(segmented, threshold, (0, 0, 0))
  assert abs(share - foreground.mean()) < 1e-4
  assert list(shown) == ["Mask", "Cut-out", "Overlay", "Composite"]
  assert abs((shown["Mask"] > 127).mean() - share) < 0.02


def test_a_threshold_keeps_the_order_of_probabilities_and_their_ends():
  probability = np.linspace(0, 1, 101, dtype=np.float32)
  for threshold in picture.THRESHOLDS:
    moved = picture.at_threshold(probability, threshold)
    assert (np.diff(moved) > 0).all() and moved[0] == 0 and moved[-1] == 1
  with pytest.raises(ValueError, match=r"threshold=1: expected a probability in \(0, 1\)"):
    picture.at_threshold(probability, 1)


def test_averaging_and_refinement_are_those_of_the_command(photograph):
  image, restored = reading.read_picture(photograph), Segmenter.restore("pretrained:faces")
  for average, refine in ((True, "none"), (False, "guided"), (True, "grabcut")):
    segmented = picture.segment(photograph, runs_lib.SHIPPED, average, refine)
    expected = refinement.refine(restored(image, average), image, refine)
    np.testing.assert_array_equal(segmented.probability, expected)


def test_the_composite_is_on_the_chosen_picture(segmented):
  behind = np.zeros((8, 8, 3), np.uint8)
  behind[...] = (250, 10, 10)
  shown, _ = picture.views(segmented, 0.5, behind)
  assert shown["Composite"][:4, :4].astype(int).mean(axis=(0, 1))[0] > 200


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("#2060a0", (32, 96, 160)),
    ("rgb(1, 2, 3)", (1, 2, 3)),
    ("rgba(173.02, 59.4, 0, 0.5)", (173, 59, 0)),
  ],
)
def test_colours_are_read_as_browsers_write_them(text, expected):
  assert picture.colour(text) == expected


@pytest.mark.parametrize("text", ["white", "#12", "rgb(1, 2)", "rgb(300, 0, 0)", "rgb()", ""])
def test_what_is_no_colour_is_refused_by_its_value(text):
  with pytest.raises(ValueError, match="is not a colour"):
    picture.colour(text)


def test_segmenters_are_the_one_that_ships_trained_runs_and_files(runs, generator, tmp_path):
  assert runs_lib.segmenters(tmp_path / "missing") == ["pretrained:faces"]
  folder = tmp_path / "runs"
  folder.mkdir()
  for name in ("whole", "light_and_dark"):
    (folder / name).symlink_to(runs / name)
  (folder / "generator.safetensors").symlink_to(generator)
  (folder / "damaged.safetensors").write_text("no segmenter")
  Segmenter.restore("pretrained:faces").save(folder / "converted.safetensors")
  (folder / "exported.onnx").write_bytes(b"")
  names = ["converted.safetensors", "exported.onnx", "whole"]
  choices = runs_lib.segmenters(folder)
  assert choices[0] == "pretrained:faces"
  assert sorted(choices[1:]) == [str(folder / name) for name in names]
  assert [runs_lib.label(choice) for choice in choices[1:]] == [
    _name(choice) for choice in choices[1:]
  ]


def test_a_run_that_was_trained_anew_is_restored_anew(runs, tmp_path):
  (tmp_path / "run").symlink_to(runs / "whole")
  choice = str(tmp_path / "run")
  first = picture.restore(choice)
  assert picture.restore(choice) is first
  (tmp_path / "run").unlink()
  (tmp_path / "run" / "train").mkdir(parents=True)
  for path in (runs / "whole").iterdir():
    if path.name != "train":
      (tmp_path / "run" / path.name).symlink_to(path)
  for path in (runs / "whole" / "train").iterdir():
    if path.name != stage_records.RECORD:
      (tmp_path / "run" / "train" / path.name).symlink_to(path)
  record = whole_files.read_json(runs / "whole" / "train" / stage_records.RECORD)
  whole_files.write_json(tmp_path / "run" / "train" / stage_records.RECORD, record)
  assert picture.restore(choice) is not first


def test_a_run_that_was_adapted_since_answers_with_its_new_weights(finished, tmp_path):
  run = tmp_path / "run"
  shutil.copytree(finished, run)
  first = picture.restore(str(run))
  made = run / "adapt" / f"round-{whole_files.read_json(run / 'config.json')['adapt']['rounds']}"
  stage_records.begin_stage(run / "adapt", {})
  shutil.copytree(run / "train" / "checkpoints", made / "checkpoints")
  assert picture.restore(str(run)).variables.keys() == first.variables.keys()
  stage_records.finish_stage(run / "adapt")
  adapted = picture.restore(str(run))
  assert adapted is not first and picture.restore(str(run)) is adapted


def test_grey_and_transparent_pictures_are_taken_as_by_the_command(tmp_path):
  path = tmp_path / "grey.png"
  Image.new("LA", (40, 30), (128, 200)).save(path)
  assert picture.segment(path, runs_lib.SHIPPED, False, "none").image.shape == (30, 40, 3)
