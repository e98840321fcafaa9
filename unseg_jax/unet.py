"""The segmentation U-Net (arXiv 2105.08127, appendix; milesial/Pytorch-UNet's layout, bilinear)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unseg_jax import parallel

# PyTorch's default initialisation of a convolution: uniform within 1 / sqrt(fan in).
KERNEL_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Block(nn.Module):
  """Twice: 3 x 3 convolution, batch norm, ReLU."""

  features: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    for i in (1, 2):
      x = nn.Conv(self.features, (3, 3), kernel_init=KERNEL_INIT, name=f"conv_{i}")(x)
      x = nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=1e-5,
        axis_name=parallel.AXIS if train else None,
        name=f"norm_{i}",
      )(x)
      x = nn.relu(x)
    return x


class Unet(nn.Module):
  """Maps images `[N, H, W, 3]` in [-1, 1] to logits `[N, H, W, 2]`; channel 1 is foreground.

  H and W are any size from 2 ** (len(widths) - 1) on. In training it runs under `parallel.pmap`,
  over which the batch norms average.
  """

  widths: tuple[int, ...] = (64, 128, 256, 512, 512)

  @nn.compact
  def __call__(self, images: jax.Array, train: bool = False) -> jax.Array:
    x = Block(self.widths[0], name="inc")(images, train)
    skips = []
    for i, features in enumerate(self.widths[1:], start=1):
      skips.append(x)
      x = Block(features, name=f"down_{i}")(max_pool(x), train)  # [N, H / 2^i, W / 2^i, features]
    # The way up: half of the channels of each level, the last level keeps its own.
    up_widths = (*self.widths[-3::-1], self.widths[0])
    for i, features in enumerate(up_widths, start=1):
      skip = skips.pop()
      x = jnp.concatenate([skip, pad_to(upsample(x), skip)], axis=-1)
      x = Block(features, name=f"up_{i}")(x, train)
    return nn.Conv(2, (1, 1), kernel_init=KERNEL_INIT, name="out")(x)


def max_pool(x: jax.Array) -> jax.Array:
  """Halves height and width by the maximum of 2 x 2 pixels; an odd last row or column is dropped.

  Written as maxima of slices because the gradient of a windowed reduction is slow on CPUs.
  """
  batch, height, width, channels = x.shape
  x = x[:, : height // 2 * 2, : width // 2 * 2]
  x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
  x = jnp.maximum(x[:, :, 0], x[:, :, 1])
  return jnp.maximum(x[:, :, :, 0], x[:, :, :, 1])


def upsample(x: jax.Array) -> jax.Array:
  """Doubles height and width by bilinear interpolation with aligned corners."""
  return _double(_double(x, axis=1), axis=2)


def _double(x: jax.Array, axis: int) -> jax.Array:
  """Linear interpolation from n to 2n points along one axis, the ends kept in place.

  Point `p` of the result lies at `p (n - 1) / (2n - 1)`: point `2j` between the inputs `j - 1` and
  `j`, at the share `1 - j / (2n - 1)`; point `2j + 1` between `j` and `j + 1`, at the share
  `(n - 1 - j) / (2n - 1)`. Slices and sums alone: their gradient is fast everywhere.
  """
  size = x.shape[axis]
  j = np.arange(size).reshape([-1 if i == axis else 1 for i in range(x.ndim)])
  first, without_first = jnp.split(x, [1], axis)
  without_last, last = jnp.split(x, [size - 1], axis)
  before = jnp.concatenate([first, without_last], axis)
  after = jnp.concatenate([without_first, last], axis)
  even = before + (x - before) * jnp.asarray(1 - j / (2 * size - 1), x.dtype)
  odd = x + (after - x) * jnp.asarray((size - 1 - j) / (2 * size - 1), x.dtype)
  doubled = jnp.stack([even, odd], axis + 1)
  return doubled.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])


def pad_to(x: jax.Array, like: jax.Array) -> jax.Array:
  """Pads height and width with zeros, evenly on both sides, to those of `like`."""
  rows, columns = like.shape[1] - x.shape[1], like.shape[2] - x.shape[2]
  before = (rows // 2, columns // 2)
  return jnp.pad(
    x, ((0, 0), (before[0], rows - before[0]), (before[1], columns - before[1]), (0, 0))
  )
