"""The segmentation U-Net (arXiv 2105.08127, appendix), bilinear, as in milesial/Pytorch-UNet."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unseg_jax.array_types import AnyArray, Array, Float, Int
from unseg_jax.runtime import parallel

# PyTorch's default initialisation of a convolution: uniform within +-1 / sqrt(fan in).
KERNEL_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Block(nn.Module):
  """Two repetitions of 3 x 3 convolution, batch norm and ReLU."""

  features: int
  dtype: Any = None

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], train: bool, sizes: Int[AnyArray, "n 2"] | None = None
  ) -> Float[Array, "n h w {self.features}"]:
    for i in (1, 2):
      x = keep_within(x, sizes)
      x = nn.Conv(
        self.features, (3, 3), kernel_init=KERNEL_INIT, dtype=self.dtype, name=f"conv_{i}"
      )(x)
      x = nn.BatchNorm(
        dtype=self.dtype,
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        axis_name=parallel.AXIS if train else None,
        name=f"norm_{i}",
      )(x)
      x = nn.relu(x)
    return x


class Unet(nn.Module):
  """Maps images in [-1, 1] to logits of background (channel 0) and foreground (channel 1).

  Height and width may be any size of at least 2 ** (len(features) - 1). Training runs under
  `parallel.pmap`, and batch norms average over it.

  With `sizes`, one batch may hold images of several sizes. Image i fills the first `sizes[i]` rows
  and columns of its array, and its logits there equal those of the image alone. Height and width
  must then be multiples of 2 ** (len(features) - 1).

  Attributes:
    features: channels of each level, from full resolution down.
    dtype: the dtype of computations, such as `bfloat16`; weights, statistics and logits stay
      float32.
  """

  features: tuple[int, ...] = (64, 128, 256, 512, 512)
  dtype: Any = None

  @nn.compact
  def __call__(
    self,
    images: Float[AnyArray, "n h w 3"],
    train: bool = False,
    sizes: Int[AnyArray, "n 2"] | None = None,
  ) -> Float[Array, "n h w 2"]:
    x = Block(self.features[0], dtype=self.dtype, name="inc")(jnp.asarray(images), train, sizes)
    skips = []
    for i, features in enumerate(self.features[1:], start=1):
      skips.append((x, sizes))
      sizes = None if sizes is None else sizes // 2
      # [N, H / 2^i, W / 2^i, features]
      x = Block(features, dtype=self.dtype, name=f"down_{i}")(max_pool(x), train, sizes)
    # The decoder halves the channels of each level; the last level keeps its own.
    up_features = (*self.features[-3::-1], self.features[0])
    for i, features in enumerate(up_features, start=1):
      x = upsample(x, sizes)
      # If the skip's size is odd, its last row or column receives zeros from below.
      x = keep_within(x, None if sizes is None else 2 * sizes)
      skip, sizes = skips.pop()
      x = jnp.concatenate([skip, pad_to(x, skip)], axis=-1)
      x = Block(features, dtype=self.dtype, name=f"up_{i}")(x, train, sizes)
    logits = nn.Conv(2, (1, 1), kernel_init=KERNEL_INIT, dtype=self.dtype, name="out")(x)
    return logits.astype(jnp.float32)


def levels(params: Mapping[str, Any], way: str) -> list[str]:
  """Returns the names of the blocks on the `way`, "down" or "up", in execution order."""
  return sorted(name for name in params if name.startswith(f"{way}_"))


def keep_within(
  x: Float[AnyArray, "n h w c"], sizes: Int[AnyArray, "n 2"] | None
) -> Float[Array, "n h w c"]:
  """Sets values outside the first `sizes[i]` rows and columns to zero; None keeps all values."""
  if sizes is None:
    return jnp.asarray(x)
  rows, columns = (jnp.arange(size, dtype=jnp.int32) for size in x.shape[1:3])
  rows_within = rows[None, :, None, None] < sizes[:, 0, None, None, None]
  columns_within = columns[None, None, :, None] < sizes[:, 1, None, None, None]
  return jnp.where(rows_within & columns_within, x, 0)


def max_pool(x: Float[AnyArray, "n h w c"]) -> Float[Array, "n h//2 w//2 c"]:
  """Halves height and width by the maximum of 2 x 2 pixels; drops an odd last row or column.

  It takes maxima of slices, because the gradient of a windowed reduction is slow on CPUs.
  """
  batch, height, width, channels = x.shape
  x = x[:, : height // 2 * 2, : width // 2 * 2]
  x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
  x = jnp.maximum(x[:, :, 0], x[:, :, 1])
  return jnp.maximum(x[:, :, :, 0], x[:, :, :, 1])


def upsample(
  x: Float[AnyArray, "n h w c"], sizes: Int[AnyArray, "#n 2"] | None = None
) -> Float[Array, "n 2*h 2*w c"]:
  """Doubles height and width by bilinear interpolation with aligned corners.

  Args:
    x: the images.
    sizes: the rows and columns that each image fills; None means all.
  """
  if sizes is None:
    sizes = jnp.array([x.shape[1:3]], jnp.int32)
  # Slices and stacks of images are copies in slow layouts on a TPU. On a CPU they are cheaper than
  # products with matrices that are almost all zeros.
  return jax.lax.platform_dependent(x, sizes, cpu=upsample_by_slices, default=upsample_by_products)


def upsample_by_slices(
  x: Float[AnyArray, "n h w c"], sizes: Int[AnyArray, "#n 2"]
) -> Float[Array, "n 2*h 2*w c"]:
  """Implements `upsample` on CPUs."""
  return _double(_double(x, 1, sizes[:, 0]), 2, sizes[:, 1])


def upsample_by_products(
  x: Float[AnyArray, "n h w c"], sizes: Int[AnyArray, "#n 2"]
) -> Float[Array, "n 2*h 2*w c"]:
  """Implements `upsample` on accelerators: a product with a small matrix along each axis."""
  rows, columns = (
    _doubling_matrix(x.shape[axis], sizes[:, axis - 1]).astype(x.dtype) for axis in (1, 2)
  )
  # One matrix for all images, or one per image. float32 precision adds little work.
  each = "n" if len(sizes) > 1 else ""
  product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
  rows, columns = (matrix if each else matrix[0] for matrix in (rows, columns))
  x = product(f"{each}ph,nhwc->npwc", rows, x)
  return product(f"{each}qw,npwc->npqc", columns, x)


# A size is an int, or a symbolic JAX expression when a program with variable sizes is exported.
Size = Any


def _doubling_matrix(size: Size, filled: AnyArray) -> Array:
  """Returns the matrices `[N, 2 size, size]` of the linear map `_double`."""
  identity = jnp.eye(size, dtype=jnp.float32)[:, None]
  identity = jnp.broadcast_to(identity, (len(filled), size, 1, size))
  return _double(identity, 1, filled)[:, :, 0]


def _double(x: AnyArray, axis: int, filled: AnyArray) -> Array:
  """Interpolates linearly from n to 2n points along one axis; the end points stay in place.

  Point `p` of the result is at `p (n - 1) / (2n - 1)`. Point `2j` is between inputs `j - 1` and `j`
  with the weight `1 - j / (2n - 1)` on input `j`. Point `2j + 1` is between inputs `j` and `j + 1`
  with the weight `(n - 1 - j) / (2n - 1)` on input `j + 1`. Only slices and sums are used, because
  their gradient is fast on all backends.

  Args:
    x: `[N, H, W, C]`.
    axis: 1 or 2.
    filled: `[N]` or `[1]`, the n of each image; values beyond it are ignored.
  """
  size = x.shape[axis]
  n = filled.reshape(-1, 1, 1, 1)
  j = jnp.arange(size, dtype=jnp.int32).reshape([-1 if i == axis else 1 for i in range(4)])
  first, without_first = jnp.split(x, [1], axis)
  without_last, last = jnp.split(x, [size - 1], axis)
  before = jnp.concatenate([first, without_last], axis)
  after = jnp.concatenate([without_first, last], axis)
  even = before + (x - before) * (1 - j / (2 * n - 1)).astype(x.dtype)
  odd = x + (after - x) * ((n - 1 - j) / (2 * n - 1)).astype(x.dtype)
  doubled = jnp.stack([even, odd], axis + 1)
  return doubled.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])


def pad_to(
  x: Float[AnyArray, "n h w c"], like: Float[AnyArray, "n rows columns _"]
) -> Float[Array, "n rows columns c"]:
  """Pads height and width with zeros to those of `like`, evenly on both sides."""
  rows, columns = like.shape[1] - x.shape[1], like.shape[2] - x.shape[2]
  before = (rows // 2, columns // 2)
  return jnp.pad(
    x, ((0, 0), (before[0], rows - before[0]), (before[1], columns - before[1]), (0, 0))
  )
