"""Layers that several architectures share."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unseg_jax.array_types import AnyArray, Array, Float

# Maps (images, kernel or filters) to images.
Convolve = Callable[[Float[Array, "n h w c"], Any], Float[Array, "n h2 w2 f"]]


def by_platform(cpu: Convolve, default: Convolve, cpu_gradient: Convolve | None = None) -> Convolve:
  """Returns a function with two equivalent implementations: for CPUs and for accelerators.

  On CPUs, the gradient is that of `cpu_gradient` if given, otherwise that of `cpu`. Only the
  arguments are stored for the gradient. JAX by itself would store everything that any of the
  implementations needs.
  """

  @jax.custom_vjp
  def convolve(x, kernel):
    return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=default)

  def forward(x, kernel):
    return convolve(x, kernel), (x, kernel)

  def backward(inputs, cotangent):
    def through(body):
      return lambda cotangent, *inputs: jax.vjp(body, *inputs)[1](cotangent)

    bodies = {"cpu": through(cpu_gradient or cpu), "default": through(default)}
    return jax.lax.platform_dependent(cotangent, *inputs, **bodies)

  convolve.defvjp(forward, backward)
  return convolve


def as_rgb(images: Float[Array, "n h w c"]) -> Float[Array, "n h w 3"]:
  """Converts images of 1, 3 or 4 channels, nominally in [-1, 1], to RGB.

  Grey is repeated. RGBA is composited over white: alpha -1 is transparent and 1 is opaque, and
  alpha values outside are clipped.
  """
  if images.shape[-1] == 1:
    return jnp.broadcast_to(images, (*images.shape[:-1], 3))
  if images.shape[-1] == 4:
    alpha = jnp.clip((images[..., 3:] + 1) / 2, 0, 1)
    return images[..., :3] * alpha + (1 - alpha)
  return images


class Projection(nn.Module):
  """Maps latents to small images.

  This is a transposed convolution of a single pixel: one matrix product and one bias per channel.
  """

  size: int
  features: int

  @nn.compact
  def __call__(
    self, latents: Float[AnyArray, "n l"]
  ) -> Float[Array, "n {self.size} {self.size} {self.features}"]:
    shape = (latents.shape[-1], self.size, self.size, self.features)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
    return (
      jnp.tensordot(latents, kernel.astype(latents.dtype), 1)
      + bias.astype(latents.dtype)[None, None, None]
    )


class DoublingConvolution(nn.Module):
  """Transposed 4 x 4 convolution with stride 2 and padding 1, which doubles the resolution.

  It equals PyTorch's `ConvTranspose2d(C, F, 4, stride=2, padding=1)`. Its kernel is stored as
  `[4, 4, C, F]`, not flipped.
  """

  features: int
  use_bias: bool = True

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n 2*h 2*w {self.features}"]:
    kernel = self.param(
      "kernel", nn.initializers.lecun_normal(), (4, 4, x.shape[-1], self.features), jnp.float32
    )
    x = _doubling_convolution(x, kernel.astype(x.dtype))
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
      x = x + bias.astype(x.dtype)[None, None, None]
    return x


def _as_convolution(x: Array, kernel: AnyArray) -> Array:
  """Convolves the input with zeros inserted between its pixels."""
  return convolution(x, kernel[::-1, ::-1], ((2, 2), (2, 2)), lhs_dilation=(2, 2))


def _as_matrix_product(x: Array, kernel: AnyArray) -> Array:
  """Computes every pixel's 4 x 4 contributions in one matrix product, then adds them in place.

  Pixel (i, j) contributes to the output rows `2i - 1 + k`. Pad the output by one row on each side
  and let `k = 2a + p`. The row is then `2 (i + a) + p`: it has parity p and is shifted down by a.
  """
  batch, height, width, channels = x.shape
  features = kernel.shape[-1]
  parts = jnp.tensordot(x, kernel.transpose(2, 0, 1, 3).reshape(channels, -1), 1)
  parts = parts.reshape(batch, height, width, 2, 2, 2, 2, features)  # [N, H, W, a, p, b, q, F]
  total = jnp.zeros((), x.dtype)
  for a in (0, 1):
    for b in (0, 1):
      part = parts[:, :, :, a, :, b].transpose(0, 1, 3, 2, 4, 5)  # [N, H, p, W, q, F]
      shift = ((0, 0), (a, 1 - a), (0, 0), (b, 1 - b), (0, 0), (0, 0))
      total = total + jnp.pad(part, shift)
  total = total.reshape(batch, 2 * height + 2, 2 * width + 2, features)
  return total[:, 1:-1, 1:-1]


# On two CPU cores, the layers of a DCGAN take 43 ms as matrix products and 64 ms as convolutions
# (batch 32). Their gradient is a convolution with stride 2, which is fast on all platforms.
_doubling_convolution = by_platform(_as_matrix_product, _as_convolution, _as_convolution)


class Affine(nn.Module):
  """Scales and shifts every channel: a batch norm in evaluation mode."""

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.float32)
    scale, bias = (array.astype(x.dtype)[None, None, None] for array in (scale, bias))
    return x * scale + bias


class ConditionalAffine(nn.Module):
  """Scales and shifts every channel by amounts that are linear in a condition.

  This is a class-conditional batch norm in evaluation mode. Conversion folds its statistics into
  both layers.
  """

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], condition: Float[Array, "n d"]
  ) -> Float[Array, "n h w c"]:
    scale, bias = (nn.Dense(x.shape[-1], name=name)(condition) for name in ("scale", "bias"))
    return x * scale[:, None, None] + bias[:, None, None]


class SelfAttention(nn.Module):
  """Self-attention of every pixel to all blocks of 2 x 2 pixels (SAGAN, arXiv 1805.08318).

  Conversion folds the learned weight of the result into the kernel of `out`.
  """

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    batch, height, width, channels = x.shape

    def project(name, features, y):
      return nn.Dense(features, use_bias=False, name=name)(y)

    def pooled(y):
      y = nn.max_pool(y, (2, 2), strides=(2, 2))
      return y.reshape(batch, height * width // 4, y.shape[-1])

    query = project("query", channels // 8, x).reshape(batch, height * width, channels // 8)
    key = pooled(project("key", channels // 8, x))
    value = pooled(project("value", channels // 2, x))
    weights = jax.nn.softmax(jnp.einsum("nqc,nkc->nqk", query, key), axis=-1)
    attended = jnp.einsum("nqk,nkc->nqc", weights, value)
    return x + project("out", channels, attended.reshape(batch, height, width, channels // 2))


class UpsampledConvolution(nn.Module):
  """Doubles the resolution by repeating pixels, then convolves.

  It has the parameters and the output of `upsample_nearest` followed by a `flax.linen.Conv` of side
  `kernel_size`, 1 or 3.
  """

  features: int
  kernel_size: int = 3
  use_bias: bool = True

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n 2*h 2*w {self.features}"]:
    shape: tuple[int, ...] = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
    if self.kernel_size == 1:
      shape = shape[2:]
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
    kernel = kernel.astype(x.dtype)
    x = convolve_upsampled(x, kernel if kernel.ndim == 4 else kernel[None, None])
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
      x = x + bias.astype(x.dtype)[None, None, None]
    return x


# On a CPU, folding the kernel is worthwhile from this many pixels in the full batch.
_FOLDING_PAYS = 1024


def _folds_on_cpu(x: Array, kernel: AnyArray) -> bool:
  batch, height, width, _ = x.shape
  return kernel.shape[0] > 1 and batch * height * width >= _FOLDING_PAYS


def _convolve_upsampled_on_cpu(x: Array, kernel: AnyArray) -> Array:
  if kernel.shape[0] == 1:
    return upsample_nearest(convolution(x, kernel, "SAME"))
  return (_in_phases if _folds_on_cpu(x, kernel) else _upsampled_first)(x, kernel)


def _differentiated_on_cpu(x: Array, kernel: AnyArray) -> Array:
  return (_dilated if _folds_on_cpu(x, kernel) else _upsampled_first)(x, kernel)


def _upsampled_first(x: Array, kernel: AnyArray) -> Array:
  return convolution(upsample_nearest(x), kernel, "SAME")


def _dilated(x: Array, kernel: AnyArray) -> Array:
  """Convolves the input, with zeros between its pixels, with the folded kernel."""
  margin = (kernel.shape[0] + 1) // 2
  padding = ((margin, margin), (margin, margin))
  return convolution(x, _fold_upsampling(kernel), padding, lhs_dilation=(2, 2))


def _in_phases(x: Array, kernel: AnyArray) -> Array:
  """Computes all four output pixels of an input pixel in one 2 x 2 convolution, then interleaves.

  Output row `2i + p` uses the rows of parity p of the folded kernel: with pixels i - 1 and i for
  p = 0, with pixels i and i + 1 for p = 1. The same holds for columns.
  """
  batch, height, width, _ = x.shape
  folded = _fold_upsampling(kernel)
  phases = [[folded[p::2, q::2] for q in (0, 1)] for p in (0, 1)]
  together = jnp.concatenate([phase for row in phases for phase in row], axis=-1)
  parts = convolution(x, together, ((1, 1), (1, 1)))  # [N, H + 1, W + 1, 4 F]
  parts = parts.reshape(batch, height + 1, width + 1, 2, 2, -1)

  def part(p, q):
    return parts[:, p : height + p, q : width + q, p, q]

  rows = [jnp.stack([part(p, 0), part(p, 1)], axis=3) for p in (0, 1)]
  return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, -1)


# Applies `upsample_nearest` and a convolution with padding "SAME" to `[N, H, W, C]`, with a kernel
# `[1, 1, C, F]` or `[3, 3, C, F]`; the result is `[N, 2H, 2W, F]`. By a TPU compiler's estimate,
# the dilated convolution takes a third of the time of upsampling first. Its gradient, a convolution
# with stride 2, also does. On two CPU cores, one convolution for the four phases is fastest: 25 ms,
# against 74 ms for the dilated one and 67 ms for upsampling first ([4, 64, 64, 192 -> 96]).
convolve_upsampled = by_platform(_convolve_upsampled_on_cpu, _dilated, _differentiated_on_cpu)


def _fold_upsampling(kernel: AnyArray) -> AnyArray:
  """Returns the kernel, larger by one, that replaces `kernel` if zeros replace repeated pixels."""
  for axis in (0, 1):
    before, after = ([(0, 0)] * axis + [ends] + [(0, 0)] * (3 - axis) for ends in ((1, 0), (0, 1)))
    kernel = jnp.pad(kernel, before) + jnp.pad(kernel, after)
  return kernel


def convolution(
  x: Float[Array, "n h w c"],
  kernel: Float[AnyArray, "kh kw c f"],
  padding: Any = "SAME",
  **options: Any,
) -> Float[Array, "n h2 w2 f"]:
  """Convolves images with a kernel; `options` are those of `conv_general_dilated`."""
  dimensions = ("NHWC", "HWIO", "NHWC")
  return jax.lax.conv_general_dilated(
    x, jnp.asarray(kernel), (1, 1), padding, dimension_numbers=dimensions, **options
  )


def upsample_nearest(x: Float[Array, "n h w c"]) -> Float[Array, "n 2*h 2*w c"]:
  """Doubles height and width by repeating every pixel."""
  batch, height, width, channels = x.shape
  x = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
  return x.reshape(batch, 2 * height, 2 * width, channels)


def leaky_relu(x: Array) -> jax.Array:
  """Leaky ReLU of slope 0.2, times the square root of 2."""
  return math.sqrt(2) * nn.leaky_relu(x, 0.2)
