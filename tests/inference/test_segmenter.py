"""A segmenter can be saved in one file; the shipped one reaches its documented quality."""

import dataclasses
import operator
import re

import golden_unet
import jax
import numpy as np
import pytest
from PIL import Image
from whole_runs import ROOT

from checkpoints_convert import unet
from unseg_jax import Segmenter
from unseg_jax.evaluation import evaluate, folders
from unseg_jax.images import reading

PRETRAINED = ROOT / "unseg_jax" / "pretrained"


@pytest.fixture(scope="module")
def segmenter():
  _, config, variables = unet.convert(golden_unet.make_state_dict(), {})
  return Segmenter.create(variables, config["widths"], 32)


def test_what_was_saved_is_restored_with_its_size(segmenter, tmp_path):
  segmenter.save(tmp_path / "one.safetensors")
  segmenter.save(tmp_path / "two.safetensors")
  assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
  restored = Segmenter.restore(tmp_path / "one.safetensors")
  assert restored.image_size == 32
  image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
  np.testing.assert_array_equal(restored(image), segmenter(image))


def test_the_weights_are_put_on_the_devices_once(segmenter):
  calls = []

  def logits(*arguments):
    calls.append(arguments)
    return segmenter.logits(*arguments)

  watched = dataclasses.replace(segmenter, logits=logits)
  views = [np.zeros((32, 64, 3), np.uint8)] * 3
  for _ in range(2):
    watched.small_logits(views)
  assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(calls))
  first, second = (jax.tree.leaves(weights) for weights, *_ in calls)
  assert all(map(operator.is_, first, second))


def test_a_file_and_a_pillow_image_of_it_are_segmented_alike(segmenter, tmp_path):
  noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
  exif = Image.Exif()
  exif[0x0112] = 6  # The orientation: a quarter turn.
  Image.fromarray(noise).save(tmp_path / "turned.jpg", exif=exif)
  Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(tmp_path / "grey16.png")
  grey_and_opacity = Image.fromarray(noise[..., 0]).convert("LA")
  grey_and_opacity.putalpha(Image.fromarray(noise[..., 1]))
  grey_and_opacity.save(tmp_path / "grey_opacity.png")
  for path in tmp_path.iterdir():
    with Image.open(path) as image:
      by_image = segmenter(image)
    np.testing.assert_array_equal(by_image, segmenter(path))
    np.testing.assert_array_equal(by_image, segmenter(str(path)))
    np.testing.assert_array_equal(by_image, segmenter(reading.read_picture(path)))
  np.testing.assert_array_equal(segmenter(Image.fromarray(noise)), segmenter(noise))


def test_a_batch_or_part_without_pixels_is_one_clear_error(segmenter):
  noise = np.zeros((4, 5, 3), np.uint8)
  for wrong in (noise[:0], noise[None], noise / 255):
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\] with at least one pixel is expected"):
      segmenter(wrong)


def test_a_segmenter_that_does_not_ship_is_refused_with_those_that_do():
  with pytest.raises(FileNotFoundError, match=r"pretrained:birds ships.*pretrained:faces"):
    Segmenter.restore("pretrained:birds")


def test_the_one_that_ships_reaches_its_recorded_metrics(tmp_path):
  file = PRETRAINED / "segmenters" / "faces.safetensors"
  assert file.stat().st_size < 4e6
  pair = folders.read_pair(
    *(PRETRAINED / "example" / name for name in ("astronaut_head.png", "astronaut_head_mask.png"))
  )
  scores = evaluate.evaluate(Segmenter.restore("pretrained:faces"), [pair])
  text = (PRETRAINED / "README.md").read_text()
  for name, label in (("iou", "IoU"), ("background_iou", "background IoU"), ("miou", "mIoU")):
    recorded = float(re.search(rf"\| {label} \| ([\d.]+) \|", text)[1])
    assert scores[name] == pytest.approx(recorded, abs=2e-3), name
