"""Images become squares with masks, predicted as an average over the flip and scales."""

import numpy as np
import pytest

from unseg_jax.adaptation import adapt
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.inference.views import SCALES


@pytest.mark.parametrize(
  ("shape", "starts"),
  [((5, 5), [0]), ((5, 6), [0, 1]), ((5, 10), [0, 5]), ((13, 5), [0, 4, 8]), ((1, 3), [0, 1, 2])],
)
def test_squares_cover_a_picture_evenly_along_its_longer_side(shape, starts):
  numbers = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
  image, mask, side = np.repeat(numbers[..., None], 3, axis=2), numbers % 3 == 0, min(shape)
  squares = list(adapt.squares(image, mask))
  expected = [
    numbers[start : start + side, :side] if shape[0] > side else numbers[:side, start:][:, :side]
    for start in starts
  ]
  for (square, part), cut in zip(squares, expected, strict=True):
    np.testing.assert_array_equal(square, np.repeat(cut[..., None], 3, axis=2))
    np.testing.assert_array_equal(part, cut % 3 == 0)
  assert set(np.concatenate([cut.ravel() for cut in expected])) == set(numbers.ravel())


def test_confidence_is_1_where_a_segmenter_is_certain_and_0_where_it_guesses():
  assert adapt.confidence(np.array([[0.0, 1.0], [1.0, 1.0]], np.float32)) == 1
  assert adapt.confidence(np.full((3, 4), 0.5, np.float32)) == 0
  assert adapt.confidence(np.array([[0.25, 0.5]], np.float32)) == 0.25


@pytest.fixture
def segmenter():
  """Predicts by how much each pixel is redder than a ramp from left to right."""

  def logits(variables, images, sizes):
    columns = np.arange(images.shape[2]) / sizes[:, 1, None, None]
    return images[..., 0] / np.float32(64) - 4 * columns.astype(np.float32)

  return Segmenter({}, 32, logits)


def test_an_average_is_that_of_the_flip_and_the_scales(segmenter):
  image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
  single = []
  for scale in SCALES:
    scaled = Segmenter({}, round(32 * scale), segmenter.logits)
    single += [scaled(image), scaled(image[:, ::-1])[:, ::-1]]
  average = segmenter(image, average=True)
  assert average.shape == (40, 56) and average.dtype == np.float32
  np.testing.assert_allclose(average, np.mean(single, axis=0), rtol=1e-6)
  np.testing.assert_allclose(segmenter(image[:, ::-1], average=True)[:, ::-1], average, rtol=1e-6)
  assert np.abs(average - segmenter(image)).max() > 0.1
