"""CIPS (Anokhin et al., arXiv 2011.13775), the class `CIPSskip` of saic-mdal/CIPS.

Every pixel is computed independently from its coordinates, by layers of StyleGAN2 (arXiv
1912.04958) with 1 x 1 convolutions. The latent that directions shift is the truncated `w`
`[w_dim]`. It is the same as in StyleGAN2, except that all layers share one row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from unseg_jax.array_types import AnyArray, Array, Float
from unseg_jax.generators import layers, style_latents, stylegan2
from unseg_jax.generators.base import Generator, Variables, apply

# Config entries that can be overridden at load time.
OPTIONS = ("truncation_psi", "noise")
NOISES = ("none", "random")


class Cips(nn.Module):
  """Maps latents to float32 images.

  Training drives the images to [-1, 1]; as upstream, they may slightly exceed it.

  Attributes:
    hidden: number of Fourier features, and also of learned features.
    channels: features of the first layer and of every block.
    grid_size: side of the learned features, in pixels.
    image_size: side of the images, in pixels; coordinates always span -1 to 1.
    image_channels: colour channels: 1 (grey), 3 (RGB) or 4 (RGBA).
  """

  hidden: int
  channels: tuple[int, ...]
  grid_size: int
  image_size: int
  image_channels: int = 3

  @nn.compact
  def __call__(
    self,
    latents: Float[AnyArray, "n w_dim"],
    noise: Sequence[Float[AnyArray, "n s s 1"]] | None = None,
  ) -> Float[Array, "n {self.image_size} {self.image_size} 3"]:
    """Generates images. `noise` holds one N(0, 1) field per layer; None adds no noise."""
    first, *blocks = self.channels
    fourier = FourierFeatures(self.hidden, name="fourier")(self.image_size)
    shape = (self.grid_size, self.grid_size, self.hidden)
    learned = self.param("learned", nn.initializers.normal(1.0), shape, jnp.float32)
    features = (fourier, _resample(learned.astype(jnp.float32), self.image_size))
    x = jnp.concatenate(features, axis=-1).astype(latents.dtype)[None]  # [1, H, W, 2 hidden]
    fields = iter([None] * (2 * len(blocks) + 1) if noise is None else noise)

    x = Layer(first, name="conv")(x, latents, next(fields))  # [N, H, W, channels]
    image_shape = (len(latents), self.image_size, self.image_size, self.image_channels)
    image = jnp.zeros(image_shape, jnp.float32)
    # The gradient recomputes the interior of blocks instead of storing it.
    block = nn.remat(Block)
    for i, size in enumerate(blocks):
      pair = next(fields), next(fields)
      x, colours = block(size, self.image_channels, name=f"block_{i}")(x, latents, pair)
      image = image + colours.astype(jnp.float32)
    return layers.as_rgb(image)


class FourierFeatures(nn.Module):
  """Sines of learned linear maps of the pixel coordinates `(x, y)`, where y points down.

  Computed in float32, because bfloat16 is too coarse for sines with many periods.
  """

  features: int

  @nn.compact
  def __call__(self, size: int) -> Float[Array, "size size {self.features}"]:
    kernel = self.param("kernel", nn.initializers.normal(1.0), (2, self.features), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
    kernel, bias = kernel.astype(jnp.float32), bias.astype(jnp.float32)
    coordinates = _coordinates(size)[:, None]
    columns, rows = coordinates * kernel[:1], coordinates * kernel[1:]  # [S, features] each
    return jnp.sin(columns[None] + rows[:, None] + bias[None, None])


class Block(nn.Module):
  """Two layers, and the colours that the block adds to the image."""

  features: int
  image_channels: int

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "m h w c"],
    latents: Float[AnyArray, "n w_dim"],
    noise: tuple[Float[AnyArray, "n h w 1"] | None, Float[AnyArray, "n h w 1"] | None],
  ) -> tuple[Float[Array, "n h w {self.features}"], Float[Array, "n h w {self.image_channels}"]]:
    for i, field in enumerate(noise):
      x = Layer(self.features, name=f"conv_{i}")(x, latents, field)
    return x, stylegan2.Colours(self.image_channels, None, name="colours")(x, latents)


class Layer(nn.Module):
  """A modulated and demodulated 1 x 1 convolution, noise, bias and leaky ReLU.

  The kernel is small compared with the images, so scaling it is cheaper than scaling activations.
  """

  features: int

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "m h w c"],
    latents: Float[AnyArray, "n w_dim"],
    noise: Float[AnyArray, "n h w 1"] | None,
  ) -> Float[Array, "n h w {self.features}"]:
    """Maps activations, one set per latent or (m = 1) one set for all latents."""
    _, height, width, channels = x.shape
    style = nn.Dense(channels, dtype=x.dtype, name="style")(latents)  # [N, channels]
    shape = (channels, self.features)
    kernel = self.param("kernel", nn.initializers.normal(1.0), shape, jnp.float32).astype(x.dtype)
    bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
    strength = self.param("noise_strength", nn.initializers.zeros, (), jnp.float32)
    scale = stylegan2.demodulation(style, kernel[None, None])  # [N, features]
    kernels = style[:, :, None] * kernel[None] * scale[:, None]  # [N, channels, features]
    x = jnp.matmul(x.reshape(len(x), height * width, channels), kernels)
    x = x.reshape(len(latents), height, width, self.features)
    if noise is not None:
      x = x + (strength.astype(jnp.float32) * noise).astype(x.dtype)
    return layers.leaky_relu(x + bias.astype(x.dtype)[None, None, None])


def _coordinates(size: int) -> Float[np.ndarray, " {size}"]:
  """Returns the coordinates of a row of pixels: -1 for the first, 1 for the last.

  They are rounded as in PyTorch's `linspace`, which counts from both ends. Positions of large
  images amplify a difference in the last bit.
  """
  step = np.float64(np.float32(2) / np.float32(size - 1))
  index = np.arange(size)
  exact = np.where(index < size // 2, step * index - 1, 1 - step * (size - 1 - index))
  return exact.astype(np.float32)


def _resample(x: Float[Array, "s s c"], size: int) -> Float[Array, "{size} {size} c"]:
  """Samples an image at the coordinates of a grid, bilinearly, clamped at the border.

  This is PyTorch's `grid_sample` with `align_corners=False`: -1 and 1 are the edges of the image,
  not the centres of its outer pixels. Even a grid of the image's own size therefore changes values.
  """
  positions = ((_coordinates(size) + 1) * np.float32(len(x)) - 1) / 2
  positions = np.clip(positions, 0, len(x) - 1)
  distances = jnp.abs(positions[:, None] - jnp.arange(len(x))[None])
  weights = jnp.maximum(1 - distances, 0)  # [size, s]
  rows = jnp.einsum("ri,ijc->rjc", weights, x, precision="highest")
  return jnp.einsum("sj,rjc->rsc", weights, rows, precision="highest")


def build(config: Mapping[str, Any], variables: Variables, identity: str) -> Generator:
  """Builds the generator of a converted file.

  Args:
    config: the entries for `style_latents.latent_sampler`, the attributes of `Cips`, and two
      options: `truncation_psi` (see `style_latents.Mapping`) and `noise`, "none" or (as upstream)
      "random".
    variables: `{'params': {'mapping', 'synthesis'}}`. The mapping network's arrays stay in
      `sample_latents`; only the synthesis network's arrays become the generator's variables.
    identity: identifies the weights.

  Raises:
    ValueError: an option is invalid.
  """
  style_latents.check_truncation(config)
  style_latents.check_noise(config, NOISES)
  synthesis = Cips(
    hidden=config["hidden"],
    channels=tuple(config["channels"]),
    grid_size=config["grid_size"],
    image_size=config["image_size"],
    image_channels=config.get("image_channels", 3),
  )
  sample_rows = style_latents.latent_sampler(config, 1, variables["params"]["mapping"])

  sides = [synthesis.image_size] * (2 * len(synthesis.channels) - 1)

  def generate(variables, latents, labels):
    noise = stylegan2.draw_noise(latents, sides) if config["noise"] == "random" else None
    return apply(synthesis, variables, latents, noise)

  return Generator(
    variables={"params": variables["params"]["synthesis"]},
    image_size=config["image_size"],
    latent_shape=(config["mapping_widths"][-1],),
    num_classes=None,
    sample_latents=lambda key, n: sample_rows(key, n)[:, 0],
    generate=generate,
    identity=identity,
  )
