"""StyleGAN3 (Karras et al., "Alias-free generative adversarial networks", arXiv 2106.12423).

The module covers configurations T (3 x 3 convolutions) and R (1 x 1 convolutions, radial filters).
The latent that directions shift is `w` `[layers + 1, w_dim]`, sampled and truncated as in
StyleGAN2. Its first row translates and rotates the Fourier features at the network's input.
Conversion folds the gains of the equalised learning rate into the weights, and computes every
layer's sizes and filters.
"""

import dataclasses
import math
from collections.abc import Mapping as MappingType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unseg_jax.array_types import AnyArray, Array, Float
from unseg_jax.generators import layers, style_latents, stylegan2
from unseg_jax.generators.base import Generator, Variables, apply
from unseg_jax.generators.filtered_activation import Geometry, filtered_activation

# Config entries that can be overridden at load time.
OPTIONS = ("truncation_psi", "truncation_cutoff", "label")


@dataclasses.dataclass(frozen=True)
class Features:
  """The Fourier features at the network's input.

  Attributes:
    channels: number of features.
    size: side of the square, in samples.
    rate: samples per unit of length; the image without its margins is one unit wide.
    bandwidth: in cycles per unit; amplitudes fade from this frequency to half of the rate.
  """

  channels: int
  size: int
  rate: int
  bandwidth: float | int


class Synthesis(nn.Module):
  """Maps latents to float32 images.

  Training drives the images to [-1, 1]; as upstream, they may slightly exceed it.

  Attributes:
    features: the network's input.
    channels: output channels of every layer except the last, whose output is the image.
    kernel_size: side of the layers' kernels, 3 (T) or 1 (R); that of the last layer is 1.
    activations: sizes of the activation after each layer except the last.
    clamp: bound of every layer's absolute values, or None.
    output_scale: scale of the image.
    image_channels: colour channels: 1 (grey), 3 (RGB) or 4 (RGBA).
  """

  features: Features
  channels: tuple[int, ...]
  kernel_size: int
  activations: tuple[Geometry, ...]
  clamp: float | int | None = 256
  output_scale: float | int = 0.25
  image_channels: int = 3

  @nn.compact
  def __call__(
    self, latents: Float[AnyArray, "n {len(self.channels)+2} w_dim"]
  ) -> Float[Array, "n s s 3"]:
    x = FourierFeatures(self.features, name="features")(latents[:, 0])
    for i, (features, geometry) in enumerate(zip(self.channels, self.activations, strict=True)):
      layer = Layer(features, self.kernel_size, geometry, self.clamp, name=f"layer_{i}")
      x = layer(x, latents[:, i + 1])  # [N, size, size, features]
    colours = stylegan2.Colours(self.image_channels, self.clamp, name="colours")
    image = colours(x, latents[:, -1])
    return layers.as_rgb(self.output_scale * image.astype(jnp.float32))


class FourierFeatures(nn.Module):
  """Plane waves, translated and rotated according to the latent, then mixed.

  Four numbers are linear in the latent: the first two are the cosine and sine of an angle, the
  others a translation. A stored matrix moves all images alike. Always computed in float32.
  """

  features: Features

  @nn.compact
  def __call__(
    self, latents: Float[AnyArray, "n w_dim"]
  ) -> Float[Array, "n {self.features.size} {self.features.size} {self.features.channels}"]:
    channels, size, rate = self.features.channels, self.features.size, self.features.rate
    frequencies = self._constant("frequencies", channels, 2)  # of columns, of rows
    phases = self._constant("phases", channels)
    matrix = self._constant("transform", 3, 3)
    motion = nn.Dense(4, dtype=jnp.float32, precision="highest", name="motion")(latents)
    motion = motion / jnp.linalg.norm(motion[:, :2], axis=1, keepdims=True)
    turn, shift = _combine(motion, matrix)

    phases = phases[None] + jnp.einsum("cd,nd->nc", frequencies, shift, precision="highest")
    turned = jnp.einsum("cd,nde->nce", frequencies, turn, precision="highest")
    bandwidth = self.features.bandwidth
    fading = (jnp.linalg.norm(turned, axis=2) - bandwidth) / (rate / 2 - bandwidth)
    amplitudes = jnp.clip(1 - fading, 0, 1)
    # The sine addition theorem needs sines per column and per row only, not per sample.
    line = (jnp.arange(size) + 0.5 - size / 2) / rate
    along = 2 * math.pi * line[None, :, None]
    by_column = along * turned[:, None, :, 0] + 2 * math.pi * phases[:, None]  # [N, W, C]
    by_row = along * turned[:, None, :, 1]  # [N, H, C]
    sines = [(wave(by_row)[:, :, None], wave(by_column)[:, None]) for wave in (jnp.sin, jnp.cos)]
    (row_sine, column_sine), (row_cosine, column_cosine) = sines
    waves = row_sine * column_cosine + row_cosine * column_sine
    waves = waves * amplitudes[:, None, None]
    kernel = self.param("kernel", nn.initializers.normal(1.0), (channels, channels), jnp.float32)
    return jnp.tensordot(waves.astype(latents.dtype), kernel.astype(latents.dtype), 1)

  def _constant(self, name: str, *shape: int) -> jax.Array:
    array = self.param(name, nn.initializers.normal(1.0), shape, jnp.float32)
    return jnp.asarray(array, jnp.float32)


def _combine(motion: Array, matrix: Array) -> tuple[jax.Array, jax.Array]:
  """Returns the effect of a latent's motion, then the stored one, on frequencies and phases."""
  cosine, sine, right, down = motion.T
  shift = (sine * down - cosine * right, -sine * right - cosine * down)
  rows = jnp.stack([cosine, -sine, shift[0], sine, cosine, shift[1]], axis=1).reshape(-1, 2, 3)
  rows = jnp.einsum("nde,ef->ndf", rows, matrix, precision="highest")
  return rows[..., :2], rows[..., 2]


class Layer(nn.Module):
  """A modulated convolution, bias, and the leaky ReLU at a higher rate.

  Conversion normalises the convolution's kernel; this module normalises the styles. As in
  StyleGAN2, the inputs and outputs are scaled instead of the kernel. Only samples that the
  subsequent filters use are convolved.
  """

  features: int
  kernel_size: int
  activation: Geometry
  clamp: float | int | None

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], latents: Float[AnyArray, "n w_dim"]
  ) -> Float[Array, "n {self.activation.size} {self.activation.size} {self.features}"]:
    channels, size, border = x.shape[-1], x.shape[1], self.kernel_size - 1
    style = nn.Dense(channels, dtype=x.dtype, name="style")(latents)  # [N, channels]
    mean_square = jnp.mean(jnp.square(style.astype(jnp.float32)), axis=1, keepdims=True)
    style = style * jax.lax.rsqrt(mean_square).astype(x.dtype)
    shape = (self.kernel_size, self.kernel_size, channels, self.features)
    kernel = self.param("kernel", nn.initializers.normal(1.0), shape, jnp.float32)
    kernel = jnp.asarray(kernel, x.dtype)
    # The reciprocal root mean square of the layer's input during training.
    gain = self.param("gain", nn.initializers.ones, (), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)

    # With its full border, the convolution would return `size + border` samples.
    first, end = self.activation.inputs(size + border)
    padding = (border - first, end - size)
    x = layers.convolution(x * style[:, None, None], kernel, (padding, padding))
    scale = stylegan2.demodulation(style, kernel) * jnp.asarray(gain, x.dtype)
    x = x * scale[:, None, None] + jnp.asarray(bias, x.dtype)[None, None, None]
    return filtered_activation(x, self._filters(), self.activation.without(first), self.clamp)

  def _filters(self) -> tuple[jax.Array, jax.Array]:
    geometry, initializer = self.activation, nn.initializers.ones
    up = self.param("up", initializer, (geometry.up_taps // 2,), jnp.float32)
    shape = (2, geometry.rank, geometry.down_taps // 2)
    return jnp.asarray(up), jnp.asarray(self.param("down", initializer, shape, jnp.float32))


def make_synthesis(config: MappingType[str, Any]) -> Synthesis:
  """Builds the network from a converted file's config; see `build`."""
  return Synthesis(
    features=Features(**config["features"]),
    channels=tuple(config["channels"]),
    kernel_size=config["kernel_size"],
    activations=tuple(Geometry(**sizes) for sizes in config["activations"]),
    clamp=config["clamp"],
    output_scale=config["output_scale"],
    image_channels=config.get("image_channels", 3),
  )


def build(config: MappingType[str, Any], variables: Variables, identity: str) -> Generator:
  """Builds the generator of a converted file.

  A conditional network uses the class only to map noise to `w`. `sample_latents` therefore samples
  the class, uniformly from those selected by the option `label`. The generator itself has no
  labels.

  Args:
    config: `z_dim`, `mapping_widths`, `num_classes`, `class_features`, the attributes of
      `Synthesis` with `features` and `activations` as dicts, and three options: `truncation_psi`
      and `truncation_cutoff` (see `style_latents.Mapping`), and `label` (see
      `style_latents.latent_sampler`).
    variables: `{'params': {'mapping', 'synthesis'}}`. The mapping network's arrays stay in
      `sample_latents`; only the synthesis network's arrays become the generator's variables.
    identity: identifies the weights.

  Raises:
    ValueError: an option is invalid.
  """
  style_latents.check_truncation(config)
  synthesis = make_synthesis(config)
  num_ws = len(synthesis.channels) + 2
  return Generator(
    variables={"params": variables["params"]["synthesis"]},
    image_size=synthesis.activations[-1].size,
    latent_shape=(num_ws, config["mapping_widths"][-1]),
    num_classes=None,
    sample_latents=style_latents.latent_sampler(config, num_ws, variables["params"]["mapping"]),
    generate=lambda variables, latents, labels: apply(synthesis, variables, latents),
    identity=identity,
  )
