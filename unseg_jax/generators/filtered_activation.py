"""StyleGAN3's activation between two filters (Karras et al., arXiv 2106.12423, section 3.1).

A leaky ReLU creates frequencies above the Nyquist limit of its samples. The activations are
therefore upsampled before it, then filtered and downsampled after it. Upsampling inserts zeros
between the samples, adds `padding` zeros around them (or crops, if negative), and filters. None of
this is computed literally:

- On CPUs, activations at the high rate are stored as separate phases, one for each position between
  two input samples. A filter is then a sum of shifted arrays without any zeros.
- On other platforms, each filter is a small banded matrix that multiplies along one axis.

Both filters are symmetric and of even length, so half of their taps define them. The second filter
is a sum of `rank` products of a row filter and a column filter. The rank is one for a separable
filter and about five for a radial one, whose singular values decay fast.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from unseg_jax.array_types import AnyArray, Array, Float
from unseg_jax.generators import layers

# A term in a sum of shifted arrays: index of the weight, phase, shift down, shift right.
Term = tuple[int, int, int, int]
# On two CPU cores, activations of 276 x 276 samples and 64 channels take 60 ms in phases and 305 ms
# by matrices. Activations of 36 x 36 samples and 256 channels take 4 and 7 ms. Below this size, the
# gain of phases does not justify their compilation time. By a TPU compiler's estimate, two arrays
# of 1044 x 1044 samples and 32 channels in bfloat16 take 19 ms by matrices, 22 ms in phases and
# 252 ms as depthwise convolutions.
_PHASES_PAY = 100
Filters = tuple[Float[AnyArray, " half_up"], Float[AnyArray, "2 rank half_down"]]


@dataclasses.dataclass(frozen=True)
class Geometry:
  """Sizes of one activation, the same along both axes.

  Attributes:
    size: output samples along an axis.
    up: upsampling factor; a multiple of `down`.
    down: downsampling factor.
    up_taps: length of the first filter.
    down_taps: length of the second filter.
    rank: rank of the second filter.
    padding: zeros before the upsampled samples along an axis; a negative value crops samples. The
      number of zeros after them follows from the sizes.
  """

  size: int
  up: int
  down: int
  up_taps: int
  down_taps: int
  rank: int
  padding: int

  @property
  def high_size(self) -> int:
    """Samples at the high rate, along an axis, that contribute to the output."""
    return (self.size - 1) * self.down + self.down_taps

  def inputs(self, size: int) -> tuple[int, int]:
    """Returns the range [first, end) of `size` input samples that contribute to the output."""
    first = -(self.padding // self.up)  # rounded up
    last = (self.high_size + self.up_taps - 2 - self.padding) // self.up
    return max(first, 0), min(last + 1, size)

  def without(self, samples: int) -> "Geometry":
    """Returns the geometry for an input without its first `samples` samples."""
    return dataclasses.replace(self, padding=self.padding + samples * self.up)


def filtered_activation(
  x: Float[AnyArray, "n h w c"],
  filters: Filters,
  geometry: Geometry,
  clamp: float | int | None,
) -> Float[Array, "n {geometry.size} {geometry.size} c"]:
  """Upsamples, applies the leaky ReLU times the square root of 2, clamps and downsamples.

  Args:
    x: square activations; samples outside `geometry.inputs` must be cropped.
    filters: the first halves of both filters' taps; those of the first sum to `geometry.up / 2`.
    geometry: all other sizes.
    clamp: bound of absolute values at the high rate, or None.
  """
  in_phases, by_matrices = (
    functools.partial(body, geometry=geometry, clamp=clamp) for body in (_in_phases, _by_matrices)
  )
  on_cpu = in_phases if geometry.size >= _PHASES_PAY else by_matrices
  return layers.by_platform(on_cpu, by_matrices)(jnp.asarray(x), filters)


def _by_matrices(
  x: Array, filters: Filters, geometry: Geometry, clamp: float | int | None
) -> Array:
  up, (rows, columns) = (jnp.asarray(taps, x.dtype) for taps in filters)
  high_size = geometry.high_size
  # Input sample i meets sample m at the high rate through tap `padding + up i - m`.
  taps = geometry.padding + geometry.up * np.arange(x.shape[1]) - np.arange(high_size)[:, None]
  upsample = _banded(taps, up)
  x = jnp.einsum("mh,nhwc->nmwc", upsample, x)
  x = _leaky_relu(jnp.einsum("mw,nhwc->nhmc", upsample, x), clamp)
  taps = np.arange(high_size) - geometry.down * np.arange(geometry.size)[:, None]
  down_rows, down_columns = (
    jnp.stack([_banded(taps, half) for half in halves]) for halves in (rows, columns)
  )
  if geometry.rank == 1:
    x = jnp.einsum("mw,nhwc->nhmc", down_columns[0], x)
    return jnp.einsum("mh,nhwc->nmwc", down_rows[0], x)
  x = jnp.einsum("rmw,nhwc->rnhmc", down_columns, x)
  return jnp.einsum("rmh,rnhwc->nmwc", down_rows, x)


def _leaky_relu(x: Array, clamp: float | int | None) -> jax.Array:
  """Applies the leaky ReLU of slope 0.2 times the square root of 2, then clamps."""
  x = math.sqrt(2) * jax.nn.leaky_relu(x, 0.2)
  return x if clamp is None else jnp.clip(x, -clamp, clamp)


def _banded(taps: np.ndarray, half: Array) -> jax.Array:
  """Returns a matrix of a symmetric filter's taps by tap number; numbers out of range give 0."""
  taps = np.minimum(taps, 2 * len(half) - 1 - taps)
  # A sum of constant masks, because gathering single taps is slow on accelerators.
  masks = [half[i] * jnp.asarray(taps == i, half.dtype) for i in range(len(half))]
  return functools.reduce(jnp.add, masks)


def _in_phases(x: Array, filters: Filters, geometry: Geometry, clamp: float | int | None) -> Array:
  """Computes the activation in phases: position `up s + p` at the high rate is position s of p."""
  (up, (rows, columns)), ratio = filters, geometry.up // geometry.down
  side = -(-geometry.size // ratio)
  high_side = side + (geometry.down_taps - 1 + geometry.down * (ratio - 1)) // geometry.up

  # Filter rows, then columns. Phase (p, q) has number `up p + q`.
  shape = (high_side, x.shape[2])
  phases = _shifted_sums((x,), up, _up_terms(geometry, axis=0), shape)
  phases = [
    phase
    for row in phases
    for phase in _shifted_sums((row,), up, _up_terms(geometry, axis=1), (high_side, high_side))
  ]
  phases = [_leaky_relu(phase, clamp) for phase in phases]
  if geometry.rank == 1:
    by_row = [phases[i : i + geometry.up] for i in range(0, len(phases), geometry.up)]
    terms = [_down_terms(geometry, axis) for axis in (0, 1)]
    narrow = [_shifted_sums(row, columns[0], terms[1], (high_side, side)) for row in by_row]
    by_column = [
      _shifted_sums(column, rows[0], terms[0], (side, side)) for column in zip(*narrow, strict=True)
    ]
    parts = [part for row in zip(*by_column, strict=True) for part in row]
  else:
    quarter = jnp.einsum("ra,rb->ab", rows, columns, precision="highest").ravel()
    parts = _shifted_sums(phases, quarter, _radial_terms(geometry), (side, side))
  if ratio == 1:
    return parts[0]
  x = jnp.stack(parts, axis=-1).reshape(*parts[0].shape, ratio, ratio)  # [N, H, W, C, p, q]
  x = x.transpose(0, 1, 4, 2, 5, 3).reshape(len(x), side * ratio, side * ratio, -1)
  return x[:, : geometry.size, : geometry.size]


def _up_terms(geometry: Geometry, axis: int) -> tuple[tuple[Term, ...], ...]:
  """Returns the terms of each phase along an axis: samples of the only input."""
  phases = []
  for phase in range(geometry.up):
    terms = []
    for tap in range(geometry.up_taps):
      shift, rest = divmod(tap + phase - geometry.padding, geometry.up)
      if rest == 0:
        terms.append((_mirrored(tap, geometry.up_taps), 0, *_along(axis, shift)))
    phases.append(tuple(terms))
  return tuple(phases)


def _down_terms(geometry: Geometry, axis: int) -> tuple[tuple[Term, ...], ...]:
  """Returns the terms of each phase of the output along an axis."""
  phases = []
  for phase in range(geometry.up // geometry.down):
    terms = []
    for tap, position in _positions(geometry, phase):
      shift, source = divmod(position, geometry.up)
      terms.append((_mirrored(tap, geometry.down_taps), source, *_along(axis, shift)))
    phases.append(tuple(terms))
  return tuple(phases)


def _radial_terms(geometry: Geometry) -> tuple[tuple[Term, ...], ...]:
  """Returns the terms of each phase of the output for both axes at once."""
  half, up, numbers = geometry.down_taps // 2, geometry.up, range(geometry.up // geometry.down)
  return tuple(
    tuple(
      (
        _mirrored(row_tap, 2 * half) * half + _mirrored(column_tap, 2 * half),
        row % up * up + column % up,
        row // up,
        column // up,
      )
      for row_tap, row in _positions(geometry, row_phase)
      for column_tap, column in _positions(geometry, column_phase)
    )
    for row_phase, column_phase in itertools.product(numbers, numbers)
  )


def _positions(geometry: Geometry, phase: int) -> list[tuple[int, int]]:
  """Returns each tap of the second filter with its position for the first sample of a phase."""
  return [(tap, geometry.down * phase + tap) for tap in range(geometry.down_taps)]


def _mirrored(tap: int, taps: int) -> int:
  return min(tap, taps - 1 - tap)


def _along(axis: int, shift: int) -> tuple[int, int]:
  return (shift, 0) if axis == 0 else (0, shift)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shifted_sums(
  phases: Sequence[Array],
  weights: Array,
  outputs: tuple[tuple[Term, ...], ...],
  shape: tuple[int, int],
) -> list[jax.Array]:
  """Computes weighted sums of shifted arrays `[N, h, w, C]` with zeros outside their borders.

  The gradient of such sums has the same form. JAX's own gradient would add a padded array per term.
  """
  padded, origin = _pad(phases, outputs, shape)
  weights = weights.astype(padded[0].dtype)

  def shifted(phase, down, right):
    start = (0, origin[0] + down, origin[1] + right, 0)
    batch, _, _, channels = padded[phase].shape
    end = (batch, start[1] + shape[0], start[2] + shape[1], channels)
    return jax.lax.slice(padded[phase], start, end)

  def total(terms):
    # Terms of equal weight are added first, then multiplied once.
    groups = itertools.groupby(sorted(terms), key=lambda term: term[0])
    products = [
      weights[number] * functools.reduce(jnp.add, [shifted(*term[1:]) for term in group])
      for number, group in groups
    ]
    return functools.reduce(jnp.add, products)

  return [total(terms) for terms in outputs]


def _pad(
  phases: Sequence[Array], outputs: tuple[tuple[Term, ...], ...], shape: tuple[int, int]
) -> tuple[list[jax.Array], tuple[int, int]]:
  """Pads with the zeros that shifts reach; also returns the position of the first sample."""
  shifts = [term[2:] for terms in outputs for term in terms]
  padding = []
  for axis, shifted in enumerate(zip(*shifts, strict=True)):
    before = max(0, -min(shifted))
    after = max(0, shape[axis] + max(shifted) - phases[0].shape[1 + axis])
    padding.append((before, after))
  padded = [jnp.pad(phase, ((0, 0), *padding, (0, 0))) for phase in phases]
  return padded, (padding[0][0], padding[1][0])


def _shifted_sums_forward(phases, weights, outputs, shape):
  return _shifted_sums(phases, weights, outputs, shape), (phases, weights)


def _shifted_sums_backward(outputs, shape, inputs, cotangents):
  phases, weights = inputs
  transposed: list[list[Term]] = [[] for _ in phases]
  for number, terms in enumerate(outputs):
    for weight, phase, down, right in terms:
      transposed[phase].append((weight, number, -down, -right))
  sides = phases[0].shape[1:3]
  gradients = _shifted_sums(cotangents, weights, tuple(map(tuple, transposed)), sides)
  # Filters are usually constant; XLA then removes this computation.
  plain = _shifted_sums.fun
  (weights_gradient,) = jax.vjp(lambda w: plain(phases, w, outputs, shape), weights)[1](cotangents)
  return type(phases)(gradients), weights_gradient


_shifted_sums.defvjp(_shifted_sums_forward, _shifted_sums_backward)
