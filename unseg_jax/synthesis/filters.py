"""Filters: which masks are worth training on (arXiv 2105.08127, section 3.2).

`*_accepted` decide; `area_fraction`, `histogram_maxima`, `roundness` and `agreement` are the
numbers behind their decisions, for people to look at.

Each function is pure, treats the whole batch at once on the device, and works under `jit`. Images
are float32 in [-1, 1]; masks are True in the foreground. Thresholds and fractions are Python
values, fixed when a function is compiled.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from unseg_jax.array_types import AnyArray, Array, Bool, Float, Int
from unseg_jax.errors import InvalidValue
from unseg_jax.synthesis.components import component_areas, label_components


def area_fraction(masks: Bool[AnyArray, "n h w"]) -> Float[Array, " n"]:
  """Measures the fraction of the picture, in [0, 1], that the foreground of each mask takes up."""
  return jnp.mean(masks, axis=(1, 2), dtype=jnp.float32)


def area_accepted(
  masks: Bool[AnyArray, "n h w"], low: float | int, high: float | int
) -> Bool[Array, " n"]:
  """Accepts masks whose foreground takes up a fraction of the picture within [low, high].

  Args:
    masks: True in the foreground.
    low: smallest fraction accepted, in [0, 1].
    high: largest fraction accepted, in [low, 1].

  Raises:
    ValueError: unless 0 <= low <= high <= 1.
  """
  _check_range(low, high)
  fractions = _possible_fractions(masks)
  lowest = np.searchsorted(fractions, low, side="left")
  highest = np.searchsorted(fractions, high, side="right") - 1
  areas = _count(masks)
  return (areas >= lowest) & (areas <= highest)


def histogram_accepted(
  shifted: Float[AnyArray, "n h w c"], bins: int = 12, minimum_maxima: int = 2
) -> Bool[Array, " n"]:
  """Accepts images whose histogram of values has several local maxima (`histogram_maxima`).

  Args:
    shifted: the shifted images.
    bins: number of bins, at least 2.
    minimum_maxima: the fewest local maxima accepted.

  Raises:
    ValueError: if there are fewer than 2 bins.
  """
  return histogram_maxima(shifted, bins) >= minimum_maxima


def histogram_maxima(shifted: Float[AnyArray, "n h w c"], bins: int = 12) -> Int[Array, " n"]:
  """Counts the local maxima of the histogram of each image's values.

  The histogram counts all values, of all channels, in equal bins over [-1, 1]; values outside are
  ignored. It is smoothed by a box of 3 bins, padded with zeros. A bin is a maximum if it is at
  least as high as its neighbours; the two ends have one neighbour each.

  Args:
    shifted: the shifted images.
    bins: number of bins, at least 2.

  Raises:
    ValueError: if there are fewer than 2 bins.
  """
  if bins < 2:
    raise InvalidValue(f"bins must be at least 2, for a bin needs a neighbour; got {bins}")
  n, height, width, channels = shifted.shape
  values = shifted.reshape(n, height * width * channels)
  # The last bin includes its right end, 1. Values outside belong to none.
  bin_of_value = jnp.minimum(jnp.floor((values + 1) * bins / 2), bins - 1)
  bin_of_value = jnp.where(jnp.abs(values) <= 1, bin_of_value, bins).astype(jnp.int32)
  # Accelerators scatter one value after the other; a CPU compares each value with each bin.
  counts = jax.lax.platform_dependent(
    bin_of_value,
    cpu=functools.partial(count_by_scatter, bins=bins),
    default=functools.partial(count_by_comparison, bins=bins),
  )
  # Sums instead of means of 3 bins: integers keep ties exact, and the maxima are the same.
  padded = jnp.pad(counts, ((0, 0), (1, 1)))
  smooth = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
  padded = jnp.pad(smooth, ((0, 0), (1, 1)), constant_values=-1)
  maxima = (smooth >= padded[:, :-2]) & (smooth >= padded[:, 2:])
  return jnp.sum(maxima, axis=1, dtype=jnp.int32)


def count_by_scatter(bin_of_value: Int[AnyArray, "n v"], bins: int) -> Int[Array, "n {bins}"]:
  """Counts how often each of the first `bins` bins stands in a row of int32 values in [0, bins]."""
  n = len(bin_of_value)
  places = bin_of_value + (bins + 1) * jnp.arange(n, dtype=jnp.int32)[:, None]
  counts = jnp.zeros(n * (bins + 1), jnp.int32).at[places].add(1, mode="promise_in_bounds")
  return counts.reshape(n, bins + 1)[:, :bins]


def count_by_comparison(bin_of_value: Int[AnyArray, "n v"], bins: int) -> Int[Array, "n {bins}"]:
  """Counts the same as `count_by_scatter`, by one comparison and sum for each bin."""
  counts = [jnp.sum(bin_of_value == i, axis=1, dtype=jnp.int32) for i in range(bins)]
  return jnp.stack(counts, axis=1)


def roundness_accepted(
  masks: Bool[AnyArray, "n h w"],
  threshold: float | int,
  low: float | int = 0.05,
  high: float | int = 0.90,
) -> Bool[Array, " n"]:
  """Accepts masks whose largest component is round and of reasonable size.

  The largest 8-connected component (of several as large, the first in reading order) must have
  `area / perimeter^2 > threshold` and take up a fraction of the picture within (low, high), both
  ends excluded. An empty mask is never accepted.

  Args:
    masks: True in the foreground.
    threshold: at least 0; a disc has `1 / (4 pi)`, about 0.08, and a ragged mask less.
    low: the fraction of the picture that the component must exceed, in [0, 1].
    high: the fraction that it must stay below, in [low, 1].

  Raises:
    ValueError: if `threshold` is negative, or unless 0 <= low <= high <= 1.
  """
  if threshold < 0:
    raise InvalidValue(f"threshold must be at least 0 (a disc has 0.08), got {threshold}")
  _check_range(low, high)
  masks = jnp.asarray(masks)
  largest = _largest_component(masks)
  areas = _count(largest)
  fractions = _possible_fractions(masks)
  above = areas >= np.searchsorted(fractions, low, side="right")
  below = areas < np.searchsorted(fractions, high, side="left")
  # Multiplied out, for the perimeter of a single pixel is 0.
  return above & below & (areas > threshold * perimeter(largest) ** 2)


def roundness(masks: Bool[AnyArray, "n h w"]) -> Float[Array, " n"]:
  """Measures `area / perimeter^2` of the largest component of each mask.

  It is about 0.08 for a disc, less for a ragged mask, 0 for an empty one, and infinity for a single
  pixel, whose perimeter is 0.
  """
  largest = _largest_component(jnp.asarray(masks))
  areas = _count(largest)
  return areas / jnp.where(areas > 0, perimeter(largest), 1.0) ** 2


def perimeter(masks: Bool[AnyArray, "n h w"]) -> Float[Array, " n"]:
  """Measures the length of all outlines of each mask, in pixels.

  The same estimate as scikit-image's `perimeter` with `neighborhood=4` (Benkrid and Crookes,
  "Design and FPGA Implementation of a Perimeter Estimator"): a foreground pixel with a background
  pixel, or the end of the picture, above, below, left or right of it is on the outline, and counts
  1, sqrt(2) or the mean of both according to its neighbours on the outline.
  """
  masks = jnp.asarray(masks)
  inner = masks
  for neighbour in _neighbours(masks, ((-1, 0), (1, 0), (0, -1), (0, 1))):
    inner &= neighbour
  outline = masks & ~inner
  sides = sum(n.astype(jnp.int32) for n in _neighbours(outline, ((-1, 0), (1, 0), (0, -1), (0, 1))))
  corners = sum(
    n.astype(jnp.int32) for n in _neighbours(outline, ((-1, -1), (-1, 1), (1, -1), (1, 1)))
  )
  straight = (sides == 2) | (sides == 3)
  straight &= corners <= 2
  diagonal = ((sides == 0) & (corners == 2)) | ((sides == 1) & (corners == 3))
  mixed = (sides == 1) & ((corners == 1) | (corners == 2))
  root = float(np.sqrt(2))
  return (
    _count(outline & straight)
    + root * _count(outline & diagonal)
    + (1 + root) / 2 * _count(outline & mixed)
  )


def agreement(
  masks_a: Bool[AnyArray, "n h w"], masks_b: Bool[AnyArray, "n h w"]
) -> Float[Array, " n"]:
  """Measures the fraction of pixels, in [0, 1], on which two masks of the same image agree.

  Raises:
    ValueError: if the shapes differ.
  """
  if masks_a.shape != masks_b.shape:
    raise InvalidValue(
      f"the two masks must have one shape, got {masks_a.shape} and {masks_b.shape}"
    )
  return jnp.mean(jnp.asarray(masks_a) == masks_b, axis=(1, 2), dtype=jnp.float32)


def _largest_component(masks: jax.Array) -> jax.Array:
  labels = label_components(masks)
  areas = component_areas(labels)
  n, height, width = masks.shape
  flat = (n, height * width)
  first = jnp.argmax(areas.reshape(flat), axis=1)
  label = jnp.take_along_axis(labels.reshape(flat), first[:, None], axis=1)
  return masks & (labels == label[:, :, None])


def _neighbours(masks: jax.Array, offsets: tuple[tuple[int, int], ...]) -> list[jax.Array]:
  """The value at each offset (rows, columns) from each pixel, False outside the picture."""
  _, height, width = masks.shape
  padded = jnp.pad(masks, ((0, 0), (1, 1), (1, 1)))
  return [
    padded[:, 1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]
    for rows, columns in offsets
  ]


def _count(masks: AnyArray) -> jax.Array:
  return jnp.sum(masks, axis=(1, 2), dtype=jnp.int32)


def _possible_fractions(masks: AnyArray) -> np.ndarray:
  """The fractions of the picture that 0, 1, 2 ... pixels are, in float64 on the host.

  Fractions of the picture are compared through this table, as whole numbers of pixels, since on
  the device 5 of 100 pixels in float32 may come out above or below 0.05.
  """
  size = masks.shape[1] * masks.shape[2]
  return np.arange(size + 1) / size


def _check_range(low: float | int, high: float | int) -> None:
  if not 0 <= low <= high <= 1:
    raise InvalidValue(
      f"low and high must be fractions with 0 <= low <= high <= 1, got {low}, {high}"
    )
