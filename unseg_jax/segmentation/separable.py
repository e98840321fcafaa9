"""Changes of pictures that act on each axis alone: blurs, crops, mirrors and rolls as matrices.

A change takes two matrices, one that mixes a picture's rows and one that mixes its columns; changes
one after the other are the products of their matrices. For the sizes that a U-Net is trained on,
these products cost less than depthwise convolutions (a thirtieth, on CPUs) and than gathers over
pixels (on TPUs). Every matrix here has the shape [output, input].
"""

import jax
import jax.numpy as jnp

from unseg_jax.array_types import AnyArray, Array, Bool, Float, Int


def apply(
  rows: Float[AnyArray, "i h"], columns: Float[AnyArray, "j w"], image: Float[AnyArray, "h w c"]
) -> Float[Array, "i j c"]:
  """Applies one matrix to the rows of a picture, and one to its columns; values in any range."""
  # Not in fewer bits, which TPUs take unless they are asked: a pixel is to keep its value.
  return jnp.einsum("ih,jw,hwc->ijc", rows, columns, image, precision=jax.lax.Precision.HIGHEST)


def compose(second: Float[AnyArray, "i k"], first: Float[AnyArray, "k j"]) -> Float[Array, "i j"]:
  """The matrix of one change after another."""
  return jnp.matmul(second, first, precision=jax.lax.Precision.HIGHEST)


def gaussian(
  size: int, width: Float[AnyArray, ""] | float, reach: int, replicate: bool
) -> Float[Array, "n n"]:
  """Blurs by a Gaussian.

  Args:
    size: the number of pixels along the axis.
    width: the Gaussian's standard deviation in pixels.
    reach: how far the Gaussian reaches before it is cut off, in pixels.
    replicate: whether the pixel at the border goes on beyond it; otherwise zeros do.
  """

  def kernel(distance: Array) -> Array:
    return jnp.where(jnp.abs(distance) <= reach, jnp.exp(-(distance**2) / (2.0 * width**2)), 0.0)

  inputs = jnp.arange(-reach, size + reach, dtype=jnp.float32)
  weights = kernel(inputs[None] - _pixels(size)[:, None])
  weights = weights / kernel(jnp.arange(-reach, reach + 1, dtype=jnp.float32)).sum()
  if not replicate:
    return weights[:, reach : reach + size]
  return compose(weights, _picks(jnp.clip(inputs, 0, size - 1), size))


def crop(
  size: int, share: Float[AnyArray, ""] | float, start: Float[AnyArray, ""] | float
) -> Float[Array, "n n"]:
  """Cuts out a part of the axis and enlarges it to the whole of it, linearly.

  Args:
    size: the number of pixels along the axis.
    share: what the part's length is of the axis, within (0, 1].
    start: where the part begins, of where it can: 0 at the axis's begin, 1 so that both end alike.
  """
  position = (_pixels(size) + 0.5) * share + start * (1.0 - share) * size - 0.5
  position = jnp.clip(position, 0.0, size - 1.0)
  return jnp.maximum(0.0, 1.0 - jnp.abs(position[:, None] - _pixels(size)[None]))


def mirror(size: int, mirrored: Bool[AnyArray, ""] | bool) -> Float[Array, "n n"]:
  """Reverses the axis of `size` pixels, or leaves it as it is."""
  pixels = _pixels(size)
  return _picks(jnp.where(mirrored, size - 1 - pixels, pixels), size)


def roll(size: int, shift: Int[AnyArray, ""] | int) -> Float[Array, "n n"]:
  """Moves an axis of `size` pixels forward by `shift`; what leaves it comes in at its begin."""
  return _picks((_pixels(size) - shift) % size, size)


def _pixels(size: int) -> Array:
  # With a type: JAX counts in 64 bits where it is asked to compute in them.
  return jnp.arange(size, dtype=jnp.float32)


def _picks(sources: Array, size: int) -> Array:
  """The matrix that takes each pixel from one of `size` source pixels."""
  return jax.nn.one_hot(sources.astype(jnp.int32), size, dtype=jnp.float32)
