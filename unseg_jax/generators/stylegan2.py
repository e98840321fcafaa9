"""StyleGAN2 (Karras et al., arXiv 1912.04958) as in StyleGAN2-ADA (arXiv 2006.06676).

The latent that directions shift is `w` `[num_ws, w_dim]`. It is the output of the mapping network
for N(0, 1) noise, has one row per layer of the synthesis network, and is truncated towards its
average. Conversion folds the gains of the equalised learning rate and the noise strengths into the
weights.
"""

from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unseg_jax.array_types import AnyArray, Array, Float, Key
from unseg_jax.errors import InvalidValue
from unseg_jax.generators import layers, style_latents
from unseg_jax.generators.base import Generator, Variables, apply

# Config entries that can be overridden at load time.
OPTIONS = ("truncation_psi", "truncation_cutoff", "noise", "label")
NOISES = ("const", "none", "random")

_EPSILON = 1e-8  # Added to the sum of squares in a normalisation.
_KEYS_PER_UNIT = 64  # Resolution at which sums of a latent are rounded to derive its noise key.
# The outer and inner taps of the low-pass filter [1, 3, 3, 1] of upsampling along one axis. Its
# taps sum to 2, because every second sample is an inserted zero.
_OUTER, _INNER = 0.25, 0.75


class Synthesis(nn.Module):
  """Maps latents to float32 images of side `2 * 2^len(channels)`: 1024 for nine blocks.

  Training drives the images to [-1, 1]; as upstream, they may slightly exceed it.

  Attributes:
    channels: features of every block, from 4 x 4 pixels on; each next block doubles the side.
    clamp: bound of every layer's absolute values, or None.
    noise: the noise of each layer: the stored noise ("const"), no noise ("none"), or noise sampled
      per latent ("random"), which is always the same for the same latent.
    image_channels: colour channels: 1 (grey), 3 (RGB) or 4 (RGBA).
  """

  channels: tuple[int, ...]
  clamp: float | int | None = 256
  noise: str = "const"
  image_channels: int = 3

  @nn.compact
  def __call__(
    self, latents: Float[AnyArray, "n {2*len(self.channels)} w_dim"]
  ) -> Float[Array, "n s s 3"]:
    shape = (4, 4, self.channels[0])
    constant = self.param("constant", nn.initializers.normal(1.0), shape, jnp.float32)
    x = jnp.broadcast_to(constant.astype(latents.dtype), (len(latents), *shape))
    image = jnp.zeros((len(latents), 2, 2, self.image_channels), jnp.float32)
    sides = [4 * 2**i for i in range(len(self.channels)) for _ in range(1 + (i > 0))]
    is_random = self.noise == "random"
    fields = iter(draw_noise(latents, sides) if is_random else [None] * len(sides))
    for i, features in enumerate(self.channels):
      block = Block(
        features, i > 0, self.clamp, self.noise, self.image_channels, name=f"block_{4 * 2**i}"
      )
      # A block's last row, which its colours use, is also the first row of the next block.
      rows = latents[:, max(2 * i - 1, 0) : 2 * i + 2]
      # [N, 2 * 2^i, 2 * 2^i, channels[i - 1]] -> [N, 4 * 2^i, 4 * 2^i, channels[i]]
      x, image = block(x, image, rows, [next(fields) for _ in range(1 + (i > 0))])
    return layers.as_rgb(image)


class Block(nn.Module):
  """All layers of one resolution: maps activations and the current image to the next ones."""

  features: int
  doubles: bool
  clamp: float | int | None
  noise: str
  image_channels: int

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "n h w c"],
    image: Float[Array, "n s s {self.image_channels}"],
    latents: Float[AnyArray, "n {2+self.doubles} w_dim"],
    noise: list[Array | None],
  ) -> tuple[
    Float[Array, "n 2*s 2*s {self.features}"], Float[Array, "n 2*s 2*s {self.image_channels}"]
  ]:
    if self.doubles:
      layer = Layer(self.features, True, self.clamp, self.noise, name="conv_0")
      x = layer(x, latents[:, 0], noise[0])
    layer = Layer(self.features, False, self.clamp, self.noise, name="conv_1")
    x = layer(x, latents[:, -2], noise[-1])
    colours = Colours(self.image_channels, self.clamp, name="colours")(x, latents[:, -1])
    # The image is summed in float32, as upstream does if it computes in half precision.
    return x, _upsample(image) + colours.astype(jnp.float32)


class Layer(nn.Module):
  """A modulated 3 x 3 convolution, which may double the side, noise, bias and leaky ReLU.

  Upstream scales the kernel for every image: its inputs by the style, then its outputs to unit norm
  ("demodulation", arXiv 1912.04958, section 2.2). Scaling the activations before and after the
  convolution is equivalent, and needs only one convolution for the batch.
  """

  features: int
  doubles: bool
  clamp: float | int | None
  noise: str

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "n h w c"],
    latents: Float[AnyArray, "n w_dim"],
    random_noise: Array | None,
  ) -> Float[Array, "n {1+self.doubles}*h {1+self.doubles}*w {self.features}"]:
    channels = x.shape[-1]
    style = nn.Dense(channels, dtype=x.dtype, name="style")(latents)  # [N, channels]
    shape = (3, 3, channels, self.features)
    kernel = self.param("kernel", nn.initializers.normal(1.0), shape, jnp.float32)
    kernel = jnp.asarray(kernel, x.dtype)
    bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
    convolve = _doubling_convolution if self.doubles else layers.convolution
    x = convolve(x * style[:, None, None], kernel) * demodulation(style, kernel)[:, None, None]
    if self.noise == "const":
      noise = self.param("noise", nn.initializers.normal(1.0), x.shape[1:3], jnp.float32)
      x = x + noise[None, ..., None].astype(x.dtype)
    elif random_noise is not None:
      strength = self.param("noise_strength", nn.initializers.zeros, (), jnp.float32)
      x = x + (strength.astype(jnp.float32) * random_noise).astype(x.dtype)
    return _clamp(layers.leaky_relu(x + bias.astype(x.dtype)[None, None, None]), self.clamp)


class Colours(nn.Module):
  """Maps activations to colours by a modulated 1 x 1 convolution without demodulation.

  The kernel is small, so scaling it is cheaper than scaling the activations.
  """

  channels: int
  clamp: float | int | None

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], latents: Float[AnyArray, "n w_dim"]
  ) -> Float[Array, "n h w {self.channels}"]:
    channels = x.shape[-1]
    style = nn.Dense(channels, dtype=x.dtype, name="style")(latents)
    kernel = self.param(
      "kernel", nn.initializers.normal(1.0), (channels, self.channels), jnp.float32
    )
    bias = self.param("bias", nn.initializers.zeros, (self.channels,), jnp.float32)
    kernels = style[:, :, None] * kernel.astype(x.dtype)[None]  # [N, channels, self.channels]
    x = jnp.einsum("nhwc,ncf->nhwf", x, kernels) + bias.astype(x.dtype)[None, None, None]
    return _clamp(x, self.clamp)


def _clamp(x: jax.Array, bound: float | int | None) -> jax.Array:
  return x if bound is None else jnp.clip(x, -bound, bound)


def demodulation(
  style: Float[Array, "n c"], kernel: Float[Array, "kh kw c f"]
) -> Float[Array, "n f"]:
  """Returns the reciprocal norm of each output's kernel, scaled by the style: `[N, features]`.

  Computed in float32, because bfloat16 is too coarse for sums of thousands of squares.
  """
  style, scaled = style.astype(jnp.float32), kernel.astype(jnp.float32)
  squares = jnp.square(style) @ jnp.sum(jnp.square(scaled), axis=(0, 1))
  return jax.lax.rsqrt(squares + _EPSILON).astype(kernel.dtype)


def _noise_keys(latents: Float[AnyArray, " n *latent_shape"]) -> Key[Array, " n"]:
  """Derives a key from each latent's value, independent of the batch and the number of devices.

  The key comes from two rounded weighted sums. Latents that differ only by float32 rounding errors,
  as between programs of different shapes, therefore nearly always have the same key. If a sum
  rounds differently, the only effect is different noise.
  """
  latents = jax.lax.stop_gradient(jnp.asarray(latents, jnp.float32)).reshape(len(latents), -1)
  angles = jnp.arange(latents.shape[1], dtype=jnp.float32)[None]

  def key(sums):
    rounded = jnp.round(sums * _KEYS_PER_UNIT).astype(jnp.int32)
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0), rounded[0]), rounded[1])

  sums = [(latents * weights).sum(axis=1) for weights in (jnp.cos(angles), jnp.sin(angles))]
  return jax.vmap(key)(jnp.stack(sums, axis=1))


def draw_noise(
  latents: Float[AnyArray, " n *latent_shape"], sides: Sequence[int]
) -> list[Float[Array, "n s s 1"]]:
  """Samples N(0, 1) fields `[N, side, side, 1]`, one per side, using a key from each latent."""
  sizes = [side**2 for side in sides]

  def draw(key):  # All fields at once, because one program per layer would take long to compile.
    return jax.random.normal(key, (sum(sizes),), jnp.float32)

  pieces = jnp.split(jax.vmap(draw)(_noise_keys(latents)), np.cumsum(sizes)[:-1], axis=1)
  return [x.reshape(-1, side, side, 1) for x, side in zip(pieces, sides, strict=True)]


def _doubling_in_parities(x: Array, kernel: Array) -> Array:
  """Applies a transposed 3 x 3 convolution with stride 2, then the low-pass filter.

  The result is `[N, 2H, 2W, F]`. The transposed convolution has `2H + 1` rows, and pixel i
  contributes to row `2i + k` through kernel row k. Even rows therefore use kernel rows 2 and 0 of
  pixels i - 1 and i. Odd rows use kernel row 1 of pixel i. The same holds for columns. This gives
  four small convolutions without zeros between the pixels. The filter also keeps even and odd rows
  separate; they are interleaved last.
  """
  batch, height, width, _ = x.shape
  taps, padding = (slice(None, None, -2), slice(1, 2)), ((1, 1), (0, 0))  # Even, odd.

  def part(p, q):  # The rows of parity p in the columns of parity q.
    return layers.convolution(x, kernel[taps[p], taps[q]], (padding[p], padding[q]))

  by_column = [_filter_parities(part(0, q), part(1, q), axis=1) for q in (0, 1)]
  rows = [_filter_parities(by_column[0][p], by_column[1][p], axis=2) for p in (0, 1)]
  x = jnp.stack([jnp.stack(columns, axis=3) for columns in rows], axis=2)  # [N, H, p, W, q, F]
  return x.reshape(batch, 2 * height, 2 * width, -1)


def _doubling_at_once(x: Array, kernel: Array) -> Array:
  """Computes `_doubling_in_parities` as one convolution with zeros between the input pixels.

  The low-pass filter is folded into the kernel, which becomes 6 x 6.
  """
  taps = jnp.array([_OUTER, _INNER, _INNER, _OUTER], kernel.dtype)
  for axis in (0, 1):
    shifted = [
      jnp.pad(kernel, [(i, 3 - i) if a == axis else (0, 0) for a in range(4)]) for i in range(4)
    ]
    kernel = jnp.tensordot(taps, jnp.stack(shifted), 1, precision="highest")
  return layers.convolution(x, kernel[::-1, ::-1], ((3, 3), (3, 3)), lhs_dilation=(2, 2))


_doubling_convolution = layers.by_platform(_doubling_in_parities, _doubling_at_once)


def _filter_parities(even: jax.Array, odd: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
  """Filters n + 1 even and n odd samples; returns n even and n odd samples.

  Output sample m uses input samples m - 1 to m + 2, with zeros beyond the ends.
  """
  size = odd.shape[axis]
  before, after = _neighbours(odd, axis)
  first = jax.lax.slice_in_dim(even, 0, size, axis=axis)
  second = jax.lax.slice_in_dim(even, 1, size + 1, axis=axis)
  return (
    _OUTER * (before + second) + _INNER * (first + odd),
    _OUTER * (first + after) + _INNER * (odd + second),
  )


def _upsample(image: jax.Array) -> jax.Array:
  """Doubles the sides of `[N, H, W, C]` with the low-pass filter and zeros beyond the border."""
  for axis in (1, 2):
    before, after = _neighbours(image, axis)
    pairs = (_OUTER * before + _INNER * image, _INNER * image + _OUTER * after)
    shape = (*image.shape[:axis], 2 * image.shape[axis], *image.shape[axis + 1 :])
    image = jnp.stack(pairs, axis=axis + 1).reshape(shape)
  return image


def _neighbours(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
  """Returns the previous and next sample of each sample along an axis, zero beyond the ends."""
  size = x.shape[axis]
  padded = jnp.pad(x, [(1, 1) if i == axis else (0, 0) for i in range(x.ndim)])
  before, after = (jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in (0, 2))
  return before, after


def build(config: MappingType[str, Any], variables: Variables, identity: str) -> Generator:
  """Builds the generator of a converted file.

  A conditional network uses the class only to map noise to `w`. `sample_latents` therefore samples
  the class, uniformly from those selected by the option `label`. The generator itself has no
  labels.

  Args:
    config: `z_dim`, `mapping_widths`, `num_classes`, `class_features`, `channels`, `clamp`,
      `image_channels` if not 3, and four options: `truncation_psi` and `truncation_cutoff` (see
      `style_latents.Mapping`), `noise` (see `Synthesis`), and `label`, which is a class, several
      classes, or "all".
    variables: `{'params': {'mapping', 'synthesis'}}`. The mapping network's arrays stay in
      `sample_latents`; only the synthesis network's arrays become the generator's variables.
    identity: identifies the weights.

  Raises:
    ValueError: an option is invalid, or `noise` is "random" but an older version converted the file
      and did not store the noise strengths.
  """
  style_latents.check_truncation(config)
  synthesis = Synthesis(
    channels=tuple(config["channels"]),
    clamp=config["clamp"],
    noise=config["noise"],
    image_channels=config.get("image_channels", 3),
  )
  _check_noise(config, variables["params"]["synthesis"])
  num_ws = 2 * len(config["channels"])
  return Generator(
    variables={"params": variables["params"]["synthesis"]},
    image_size=2 * 2 ** len(config["channels"]),
    latent_shape=(num_ws, config["mapping_widths"][-1]),
    num_classes=None,
    sample_latents=style_latents.latent_sampler(config, num_ws, variables["params"]["mapping"]),
    generate=lambda variables, latents, labels: apply(synthesis, variables, latents),
    identity=identity,
  )


def _check_noise(config: MappingType[str, Any], synthesis: MappingType[str, Any]) -> None:
  style_latents.check_noise(config, NOISES)
  if config["noise"] == "random" and "noise_strength" not in synthesis["block_4"]["conv_1"]:
    raise InvalidValue(
      "config.generator_options.noise='random': this file does not hold the noise strengths; "
      "convert the checkpoint again with this version"
    )
