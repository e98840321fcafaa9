"""Components equal scikit-image's for any mask."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import measure

from unseg_jax.synthesis.components import (
  component_areas,
  label_by_pointers,
  label_by_scans,
  label_components,
)

label = jax.jit(label_components)
BODIES = [
  jax.jit(label_by_pointers),
  jax.jit(label_by_scans),
]  # CPUs, accelerators.
areas = jax.jit(component_areas)


def expected_labels(mask):
  """Components of one mask by scikit-image, named by 1 + their smallest flat index."""
  reference = measure.label(mask, connectivity=2)
  names, first, inverse = np.unique(reference, return_index=True, return_inverse=True)
  return np.where(names == 0, 0, first + 1)[inverse].reshape(mask.shape)


def assert_components_match(masks):
  expected = np.stack([expected_labels(mask) for mask in masks])
  for body in BODIES:
    np.testing.assert_array_equal(body(masks), expected)
  labels = label(masks)
  np.testing.assert_array_equal(labels, expected)
  expected_areas = np.zeros_like(expected)
  for i, image_labels in enumerate(expected):
    expected_areas[i] = np.bincount(image_labels.reshape(-1))[image_labels]
  np.testing.assert_array_equal(areas(labels), np.where(masks, expected_areas, 0))


def spiral(size):
  """A one-pixel path that spirals to the centre with gaps of one pixel."""
  mask = np.zeros((size, size), bool)
  row, column, step = 0, 0, (0, 1)
  mask[0, 0] = True
  lengths = [size - 1, size - 1, size - 1]
  while lengths[-1] > 2:
    lengths += [lengths[-1] - 2] * 2
  for steps in lengths:
    for _ in range(steps):
      row, column = row + step[0], column + step[1]
      mask[row, column] = True
    step = (step[1], -step[0])
  return mask


@settings(max_examples=40, deadline=None)
@given(
  seed=st.integers(0, 2**32 - 1),
  density=st.sampled_from([0.02, 0.2, 0.35, 0.41, 0.5, 0.6, 0.9]),
  shape=st.sampled_from([(3, 32, 32), (3, 17, 23)]),
)
def test_components_of_random_masks_equal_scikit_image(seed, density, shape):
  assert_components_match(np.random.default_rng(seed).random(shape) < density)


def test_components_of_hard_shapes_equal_scikit_image():
  size = 33
  rows, columns = np.indices((size, size))
  shapes = {
    "spiral": spiral(size),
    "spiral outside": ~spiral(size),
    "chequerboard": (rows + columns) % 2 == 0,
    "dots": (rows % 2 == 0) & (columns % 2 == 0),
    "diagonal": rows == columns,
    "other diagonal": rows + columns == size - 1,
    "comb": (columns % 2 == 0) | (rows == size - 1),
    "zigzag": (rows % 2 == 0) | (columns == np.where(rows % 4 == 1, size - 1, 0)),
    "empty": np.zeros((size, size), bool),
    "full": np.ones((size, size), bool),
  }
  masks = np.stack(list(shapes.values()))
  assert_components_match(masks)
  counts = {
    name: len(np.unique(labels[labels > 0]))
    for name, labels in zip(shapes, np.asarray(label(masks)), strict=True)
  }
  assert counts == {
    "spiral": 1,
    "spiral outside": 1,
    "chequerboard": 1,
    "dots": 17 * 17,
    "diagonal": 1,
    "other diagonal": 1,
    "comb": 1,
    "zigzag": 1,
    "empty": 0,
    "full": 1,
  }


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2)])
def test_components_of_tiny_pictures_equal_scikit_image(shape):
  every_mask = np.array(list(np.ndindex((2,) * (shape[0] * shape[1]))), bool)
  assert_components_match(every_mask.reshape(-1, *shape))


def test_components_are_the_same_under_vmap_and_pmap():
  devices = jax.local_device_count()
  masks = np.random.default_rng(0).random((devices, 2, 16, 16)) < 0.4
  expected_labels = np.stack([label(m) for m in masks])
  expected_areas = np.stack([areas(labels) for labels in expected_labels])

  def both(masks):
    labels = label_components(masks)
    return labels, component_areas(labels)

  for transformed in (jax.jit(jax.vmap(both)), jax.pmap(both)):
    labels_of_all, areas_of_all = transformed(masks)
    np.testing.assert_array_equal(labels_of_all, expected_labels)
    np.testing.assert_array_equal(areas_of_all, expected_areas)


@pytest.fixture
def unchecked(monkeypatch):
  """Calls without run-time signature checks, as users call it."""
  monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("masks", [jnp.zeros((4, 4), bool), jnp.zeros((1, 4, 4))])
def test_labelling_refuses_what_is_not_a_batch_of_masks(masks):
  with pytest.raises(ValueError, match=r"masks must be bool \[N, H, W\]"):
    label_components(masks)


@pytest.mark.usefixtures("unchecked")
def test_areas_refuse_what_is_not_a_batch_of_labels():
  with pytest.raises(ValueError, match=r"labels must be \[N, H, W\].*\(4, 4\)"):
    component_areas(jnp.zeros((4, 4), jnp.int32))
