"""Filters that select masks for training (arXiv 2105.08127, section 3.2).

The `*_accepted` functions decide. `area_fraction`, `histogram_maxima`, `roundness` and `agreement`
return the underlying values for display.

Each function is pure, processes a batch on the device, and works under `jit`. Images are float32 in
[-1, 1]; masks are True in the foreground. Thresholds and fractions are Python values, which
compilation fixes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from unseg_jax.array_types import AnyArray, Array, Bool, Float, Int
from unseg_jax.errors import InvalidValue
from unseg_jax.synthesis.components import component_areas, label_components


def area_fraction(masks: Bool[AnyArray, "n h w"]) -> Float[Array, " n"]:
  """Measures the fraction of the image, in [0, 1], that the foreground of each mask covers."""
  return jnp.mean(masks, axis=(1, 2), dtype=jnp.float32)


def area_accepted(
  masks: Bool[AnyArray, "n h w"], low: float | int, high: float | int
) -> Bool[Array, " n"]:
  """Accepts masks whose foreground covers a fraction of the image within [low, high].

  Args:
    masks: True in the foreground.
    low: smallest accepted fraction, in [0, 1].
    high: largest accepted fraction, in [low, 1].

  Raises:
    ValueError: 0 <= low <= high <= 1 does not hold.
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
  """Accepts images whose value histogram has several local maxima (`histogram_maxima`).

  Args:
    shifted: the shifted images.
    bins: number of bins, at least 2.
    minimum_maxima: smallest accepted number of local maxima.

  Raises:
    ValueError: `bins` is below 2.
  """
  return histogram_maxima(shifted, bins) >= minimum_maxima


def histogram_maxima(shifted: Float[AnyArray, "n h w c"], bins: int = 12) -> Int[Array, " n"]:
  """Counts the local maxima in the histogram of each image's values.

  The histogram counts the values of all channels in equal bins over [-1, 1], and ignores values
  outside. A zero-padded box filter of 3 bins smooths it. A bin is a maximum if it is at least as
  high as its neighbours; each end bin has one neighbour.

  Args:
    shifted: the shifted images.
    bins: number of bins, at least 2.

  Raises:
    ValueError: `bins` is below 2.
  """
  if bins < 2:
    raise InvalidValue(f"bins must be at least 2, because a bin needs a neighbour; got {bins}")
  n, height, width, channels = shifted.shape
  values = shifted.reshape(n, height * width * channels)
  # The last bin includes its right end, 1. Values outside the range belong to no bin.
  bin_of_value = jnp.minimum(jnp.floor((values + 1) * bins / 2), bins - 1)
  bin_of_value = jnp.where(jnp.abs(values) <= 1, bin_of_value, bins).astype(jnp.int32)
  # Scatter is sequential on accelerators, so they compare each value with each bin instead.
  counts = jax.lax.platform_dependent(
    bin_of_value,
    cpu=functools.partial(count_by_scatter, bins=bins),
    default=functools.partial(count_by_comparison, bins=bins),
  )
  # Sums of 3 bins instead of means keep ties exact as integers; the maxima are the same.
  padded = jnp.pad(counts, ((0, 0), (1, 1)))
  smooth = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
  padded = jnp.pad(smooth, ((0, 0), (1, 1)), constant_values=-1)
  maxima = (smooth >= padded[:, :-2]) & (smooth >= padded[:, 2:])
  return jnp.sum(maxima, axis=1, dtype=jnp.int32)


def count_by_scatter(bin_of_value: Int[AnyArray, "n v"], bins: int) -> Int[Array, "n {bins}"]:
  """Counts each of the first `bins` bins in every row of int32 values in [0, bins]."""
  n = len(bin_of_value)
  places = bin_of_value + (bins + 1) * jnp.arange(n, dtype=jnp.int32)[:, None]
  counts = jnp.zeros(n * (bins + 1), jnp.int32).at[places].add(1, mode="promise_in_bounds")
  return counts.reshape(n, bins + 1)[:, :bins]


def count_by_comparison(bin_of_value: Int[AnyArray, "n v"], bins: int) -> Int[Array, "n {bins}"]:
  """Returns the counts of `count_by_scatter`, by one comparison and one sum per bin."""
  counts = [jnp.sum(bin_of_value == i, axis=1, dtype=jnp.int32) for i in range(bins)]
  return jnp.stack(counts, axis=1)


def roundness_accepted(
  masks: Bool[AnyArray, "n h w"],
  threshold: float | int,
  low: float | int = 0.05,
  high: float | int = 0.90,
) -> Bool[Array, " n"]:
  """Accepts masks whose largest component is round and of reasonable size.

  The largest 8-connected component must have `area / perimeter^2 > threshold`. It must also cover
  a fraction of the image in the open interval (low, high). Of equally large components, the first
  in reading order counts. An empty mask is never accepted.

  Args:
    masks: True in the foreground.
    threshold: at least 0. A disc has `1 / (4 pi)`, about 0.08; a ragged mask has less.
    low: exclusive lower limit of the component's fraction of the image, in [0, 1].
    high: exclusive upper limit of that fraction, in [low, 1].

  Raises:
    ValueError: `threshold` is negative, or 0 <= low <= high <= 1 does not hold.
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
  # Multiplied by the squared perimeter, which is 0 for a single pixel.
  return above & below & (areas > threshold * perimeter(largest) ** 2)


def roundness(masks: Bool[AnyArray, "n h w"]) -> Float[Array, " n"]:
  """Measures `area / perimeter^2` of the largest component of each mask.

  It is about 0.08 for a disc, lower for a ragged mask, and 0 for an empty mask. It is infinite for
  a single pixel, whose perimeter is 0.
  """
  largest = _largest_component(jnp.asarray(masks))
  areas = _count(largest)
  return areas / jnp.where(areas > 0, perimeter(largest), 1.0) ** 2


def perimeter(masks: Bool[AnyArray, "n h w"]) -> Float[Array, " n"]:
  """Measures the total length of the outlines of each mask, in pixels.

  This is the estimate of scikit-image's `perimeter` with `neighborhood=4` (Benkrid and Crookes,
  "Design and FPGA Implementation of a Perimeter Estimator"). A foreground pixel is on the outline
  if a pixel above, below, left or right of it is background or outside the image. It counts 1,
  sqrt(2) or the mean of both, depending on its neighbours on the outline.
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
    ValueError: the shapes differ.
  """
  if masks_a.shape != masks_b.shape:
    raise InvalidValue(
      f"the two masks must have the same shape, got {masks_a.shape} and {masks_b.shape}"
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
  """Returns the value at each offset (rows, columns) from each pixel; False outside the image."""
  _, height, width = masks.shape
  padded = jnp.pad(masks, ((0, 0), (1, 1), (1, 1)))
  return [
    padded[:, 1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]
    for rows, columns in offsets
  ]


def _count(masks: AnyArray) -> jax.Array:
  return jnp.sum(masks, axis=(1, 2), dtype=jnp.int32)


def _possible_fractions(masks: AnyArray) -> np.ndarray:
  """Returns the fractions of the image that 0, 1, 2 ... pixels cover, in float64 on the host.

  The table converts limits on fractions to pixel counts. On the device, 5 of 100 pixels in float32
  may come out above or below 0.05.
  """
  size = masks.shape[1] * masks.shape[2]
  return np.arange(size + 1) / size


def _check_range(low: float | int, high: float | int) -> None:
  if not 0 <= low <= high <= 1:
    raise InvalidValue(
      f"low and high must be fractions with 0 <= low <= high <= 1, got {low}, {high}"
    )
