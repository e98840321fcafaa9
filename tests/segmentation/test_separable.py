"""Matrices along the axes equal filters and gathers over pixels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from unseg_jax.segmentation import separable

SHAPE = 24, 17


@pytest.fixture(scope="module")
def image():
  return np.random.default_rng(0).uniform(-1, 1, (*SHAPE, 3)).astype(np.float32)


@pytest.mark.parametrize("replicate", [True, False])
@pytest.mark.parametrize(("width", "reach"), [(0.1, 1), (0.7, 2), (3.0, 9), (2.0, 30)])
def test_a_blur_is_the_convolution_with_the_gaussian(image, width, reach, replicate):
  matrices = (separable.gaussian(size, width, reach, replicate) for size in SHAPE)
  blurred = separable.apply(*matrices, image)
  mode = "nearest" if replicate else "constant"
  expected = scipy.ndimage.gaussian_filter(image, width, mode=mode, radius=reach, axes=(0, 1))
  np.testing.assert_allclose(blurred, expected, atol=1e-6)


@pytest.mark.parametrize(
  ("share", "starts"), [(1.0, (0.3, 0.8)), (0.6, (0, 1)), (0.83, (0.5, 0.1))]
)
def test_a_crop_interpolates_linearly(image, share, starts):
  rows, columns = (
    separable.crop(size, share, start) for size, start in zip(SHAPE, starts, strict=True)
  )
  scale = np.full(2, 1 / share, np.float32)
  translation = -np.float32(starts) * (scale - 1) * np.float32(SHAPE)
  expected = jax.image.scale_and_translate(
    image, image.shape, (0, 1), scale, translation, "linear", antialias=False
  )
  np.testing.assert_allclose(separable.apply(rows, columns, image), expected, atol=2e-5)


def test_mirrors_and_rolls_move_each_pixel_as_it_is(image):
  same = separable.mirror(SHAPE[0], False)
  moved = separable.apply(same, separable.mirror(SHAPE[1], True), image)
  np.testing.assert_array_equal(moved, image[:, ::-1])
  rolls = separable.roll(SHAPE[0], 5), separable.roll(SHAPE[1], jnp.int32(16))
  np.testing.assert_array_equal(
    separable.apply(*rolls, image), np.roll(image, (5, 16), axis=(0, 1))
  )


def test_composed_changes_are_one_after_the_other(image):
  first = separable.roll(SHAPE[0], 7), separable.mirror(SHAPE[1], True)
  second = separable.gaussian(SHAPE[0], 1.5, 4, True), separable.crop(SHAPE[1], 0.7, 0.2)
  at_once = separable.apply(*map(separable.compose, second, first), image)
  expected = separable.apply(*second, separable.apply(*first, image))
  np.testing.assert_allclose(at_once, expected, atol=1e-6)


@functools.partial(jax.jit, static_argnums=(0, 1))
def kernels(size, reach, width, share, start):
  return (
    separable.gaussian(size, width, reach, replicate=True),
    separable.crop(size, share, start),
    separable.mirror(size, True),
    separable.roll(size, 3),
  )


@settings(max_examples=40, deadline=None)
@given(
  size_and_reach=st.sampled_from([(1, 0), (1, 5), (7, 2), (24, 30)]),
  width=st.floats(0.1, 5),
  share=st.floats(0.05, 1),
  start=st.floats(0, 1),
)
def test_every_pixel_is_a_mean_of_others(size_and_reach, width, share, start):
  """Non-negative weights that sum to 1 keep values in the image's range."""
  size = size_and_reach[0]
  for matrix in kernels(*size_and_reach, width, share, start):
    assert matrix.shape == (size, size)
    assert (np.asarray(matrix) >= 0).all()
    np.testing.assert_allclose(matrix.sum(axis=1), 1, atol=1e-5)
