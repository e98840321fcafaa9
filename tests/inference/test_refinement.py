"""Refinement aligns a blurred mask with the edges of its image, or names a missing package."""

import sys

import numpy as np
import pytest
from scipy import ndimage

from unseg_jax.inference import refinement
from unseg_jax.inference.refinement import refine


def blurred_star(seed=0, height=150, width=200):
  """Makes a textured star, and the probability of a coarse, slightly inaccurate segmenter.

  Returns the mask [H, W], the picture [H, W, 3] uint8 and the probability [H, W] float32.
  """
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:height, :width] - np.array([[[height / 2]], [[width / 2]]])
  mask = np.hypot(x, y) < height / 4 * (1 + 0.3 * np.sin(5 * np.arctan2(y, x)))
  texture = ndimage.gaussian_filter(rng.normal(size=(height, width, 3)), (2, 2, 0)) * 40
  colours = np.where(mask[..., None], [190, 140, 120], [40, 90, 60])
  picture = np.clip(colours + texture, 0, 255).astype(np.uint8)
  probability = ndimage.shift(ndimage.gaussian_filter(mask.astype(np.float32), 4), (1, -2))
  return mask, picture, np.clip(probability, 0, 1)


def iou(probability, mask):
  prediction = probability > 0.5
  return (prediction & mask).sum() / (prediction | mask).sum()


@pytest.fixture
def opencv():
  pytest.importorskip("cv2.ximgproc")


@pytest.mark.parametrize("seed", range(3))
def test_guided_raises_the_iou(opencv, seed):
  mask, picture, probability = blurred_star(seed)
  refined = refine(probability, picture, "guided")
  assert iou(probability, mask) < 0.9
  assert iou(refined, mask) > 0.98
  assert (refined.shape, refined.dtype) == (probability.shape, np.float32)
  assert 0 <= refined.min() and refined.max() <= 1  # Also refuses NaN.


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (31, 7)])
@pytest.mark.parametrize("constant", [True, False])
def test_guided_stays_in_range_on_any_picture(opencv, shape, constant):
  rng = np.random.default_rng(0)
  picture = np.full((*shape, 3), 7, np.uint8) if constant else rng.integers(0, 256, (*shape, 3))
  refined = refine(rng.random(shape, np.float32), picture.astype(np.uint8), "guided")
  assert refined.shape == shape
  assert 0 <= refined.min() and refined.max() <= 1


def test_guided_leaves_certain_masks_of_a_plain_picture_alone(opencv):
  picture = np.full((40, 50, 3), 128, np.uint8)
  for value in (0.0, 1.0):
    probability = np.full((40, 50), value, np.float32)
    np.testing.assert_allclose(refine(probability, picture, "guided"), probability, atol=1e-5)


def test_guided_takes_a_view_of_a_picture_and_leaves_its_inputs_alone(opencv):
  _, picture, probability = blurred_star()
  before = picture.copy(), probability.copy()
  np.testing.assert_array_equal(
    refine(probability[:, ::-1], picture[:, ::-1], "guided"),
    refine(probability[:, ::-1].copy(), picture[:, ::-1].copy(), "guided"),
  )
  np.testing.assert_array_equal(picture, before[0])
  np.testing.assert_array_equal(probability, before[1])


@pytest.mark.parametrize("seed", range(3))
def test_grabcut_finds_the_mask_of_other_colours_and_always_the_same(opencv, seed):
  mask, picture, probability = blurred_star(seed)
  refined = refine(probability, picture, "grabcut")
  assert iou(refined, mask) > 0.98
  assert refined.dtype == np.float32 and set(np.unique(refined)) == {0, 1}
  refine(probability[::-1], picture, "grabcut")
  np.testing.assert_array_equal(refine(probability, picture, "grabcut"), refined)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (31, 7)])
def test_grabcut_takes_any_picture_and_leaves_alone_what_is_one_thing(opencv, shape):
  picture = np.full((*shape, 3), 7, np.uint8)
  for value in (0.0, 0.6, 1.0):
    refined = refine(np.full(shape, value, np.float32), picture, "grabcut")
    np.testing.assert_array_equal(refined, np.full(shape, round(value)))
  one_pixel = np.zeros(shape, np.float32)
  one_pixel[0, 0] = 1.0
  np.testing.assert_array_equal(refine(one_pixel, picture, "grabcut"), one_pixel)


def test_none_changes_nothing():
  _, picture, probability = blurred_star()
  assert refine(probability, picture, "none") is probability


@pytest.mark.parametrize(
  ("method", "message"),
  [
    ("snakes", r"refine='snakes' is not offered; use one of none, guided"),
    ("crf", r"refine='crf' is not offered \(no maintained dense CRF.*use one of none, guided"),
    ("bilateral_solver", r"not offered \(OpenCV's packages on PyPI are built without it"),
  ],
)
def test_other_methods_are_refused_with_the_reason(method, message):
  with pytest.raises(ValueError, match=message):
    refine(np.zeros((2, 3), np.float32), np.zeros((2, 3, 3), np.uint8), method)


def test_without_opencv_the_error_names_the_command(monkeypatch):
  refinement._ximgproc.cache_clear()
  refinement._opencv.cache_clear()
  monkeypatch.setitem(sys.modules, "cv2", None)
  for method in ("guided", "grabcut"):
    with pytest.raises(ImportError, match=r'pip install .*"opencv-contrib-python-headless<5"'):
      refinement.check_method(method)
  refinement.check_method("none")
