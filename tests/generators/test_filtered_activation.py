"""StyleGAN3's activation in phases and by matrices equals its definition."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unseg_jax.generators import filtered_activation
from unseg_jax.generators.filtered_activation import Geometry

CLAMP = 1.5


def mirrored(half, axis=-1):
  return np.concatenate((half, np.flip(half, axis)), axis)


def literal(x, filters, geometry):
  """The definition, with zeros between samples and all discarded samples."""
  up, (rows, columns) = filters
  batch, size, _, channels = x.shape
  zeros = np.zeros((batch, size * geometry.up, size * geometry.up, channels))
  zeros[:, :: geometry.up, :: geometry.up] = x
  width = geometry.high_size + geometry.up_taps - 1
  padded = np.zeros((batch, width, width, channels))
  for i in range(width):
    for j in range(width):
      row, column = i - geometry.padding, j - geometry.padding
      if 0 <= row < zeros.shape[1] and 0 <= column < zeros.shape[2]:
        padded[:, i, j] = zeros[:, row, column]

  def correlate(x, taps):
    windows = np.lib.stride_tricks.sliding_window_view(x, taps.shape, axis=(1, 2))
    return np.einsum("nhwcij,ij->nhwc", windows, taps)

  x = correlate(padded, np.outer(mirrored(up), mirrored(up)))
  x = np.clip(math.sqrt(2) * np.where(x < 0, 0.2 * x, x), -CLAMP, CLAMP)
  taps = np.einsum("ri,rj->ij", mirrored(rows), mirrored(columns))
  return correlate(x, taps)[:, :: geometry.down, :: geometry.down]


@pytest.mark.parametrize(
  ("size", "geometry"),
  [
    (7, Geometry(size=7, up=2, down=2, up_taps=12, down_taps=12, rank=1, padding=11)),
    (9, Geometry(size=6, up=2, down=2, up_taps=12, down_taps=12, rank=3, padding=-3)),
    (9, Geometry(size=9, up=4, down=2, up_taps=24, down_taps=12, rank=1, padding=-6)),
    (6, Geometry(size=8, up=4, down=2, up_taps=8, down_taps=8, rank=2, padding=5)),
    (5, Geometry(size=5, up=4, down=4, up_taps=8, down_taps=8, rank=1, padding=6)),
  ],
)
def test_phases_and_matrices_give_what_the_definition_gives(size, geometry):
  random = np.random.default_rng(0)
  x = random.normal(size=(2, size, size, 3)).astype(np.float32)
  up = random.normal(size=geometry.up_taps // 2).astype(np.float32)
  down = random.normal(size=(2, geometry.rank, geometry.down_taps // 2)).astype(np.float32)
  weights = random.normal(size=(2, geometry.size, geometry.size, 3)).astype(np.float32)
  found = []
  for body in (filtered_activation._in_phases, filtered_activation._by_matrices):
    body = functools.partial(body, geometry=geometry, clamp=CLAMP)

    @jax.jit
    def run(x, filters, body=body):
      result, back = jax.vjp(body, x, filters)
      return result, back(jnp.asarray(weights))

    with jax.default_matmul_precision("highest"):
      found.append(run(x, (up, down)))
  expected = literal(x, (up, down), geometry)
  for result, _ in found:
    np.testing.assert_allclose(result, expected, atol=1e-4 * np.abs(expected).max())
  gradients = [jax.tree.leaves(gradient) for _, gradient in found]
  for one, other in zip(*gradients, strict=True):
    np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max())

  first, end = geometry.inputs(size)
  cropped = x[:, first:end, first:end]
  with jax.default_matmul_precision("highest"):
    result = filtered_activation.filtered_activation(
      cropped, (up, down), geometry.without(first), CLAMP
    )
  np.testing.assert_allclose(result, expected, atol=1e-4 * np.abs(expected).max())
