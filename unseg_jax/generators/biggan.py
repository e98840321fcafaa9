"""BigGAN (Brock, Donahue, Simonyan, arXiv 1809.11096) and similar networks.

The module covers ajbrock/BigGAN-PyTorch, including the weights of BigBiGAN (Donahue, Simonyan,
arXiv 1907.02544). It also covers `resnet` (SNGAN, arXiv 1802.05957; SAGAN, arXiv 1805.08318) and
`big_resnet` (BigGAN; ContraGAN, arXiv 2006.12681) of PyTorch-StudioGAN.

Conversion folds spectral norms and batch norm statistics into the weights.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unseg_jax.array_types import AnyArray, Array, Float, Int
from unseg_jax.generators import layers
from unseg_jax.generators.base import Generator, Variables, apply, normal_latents

# Config entries that can be overridden at load time.
OPTIONS = ()


class Block(nn.Module):
  """A residual block that doubles the resolution; its batch norms may have no condition."""

  features: int

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], condition: Float[Array, "n d"] | None
  ) -> Float[Array, "n 2*h 2*w {self.features}"]:
    def norm(name, h):
      if condition is None:
        return layers.Affine(name=name)(h)
      return layers.ConditionalAffine(name=name)(h, condition)

    h = nn.relu(norm("norm_1", x))
    h = layers.UpsampledConvolution(self.features, name="conv_1")(h)
    h = nn.relu(norm("norm_2", h))
    h = nn.Conv(self.features, (3, 3), name="conv_2")(h)
    return h + layers.UpsampledConvolution(self.features, kernel_size=1, name="shortcut")(x)


class BigGan(nn.Module):
  """Maps latents and labels to images in [-1, 1] of side `4 * 2 ** (number of blocks)`.

  Attributes:
    features: channels of the initial 4 x 4 activations, then of every block's output.
    num_classes: number of classes, or None for an unconditional network, which ignores labels.
    shared_size: size of the class embedding that all batch norms share, or None if each batch norm
      has its own embedding.
    hierarchical: whether latents are split into one part for the initial activations and one for
      the condition of each block.
    attention: numbers of the blocks, from 0, that are followed by self-attention.
    image_channels: channels of the last layer: 1 (grey), 3 (RGB) or 4 (RGBA).
  """

  features: tuple[int, ...]
  num_classes: int | None
  shared_size: int | None = None
  hierarchical: bool = False
  attention: tuple[int, ...] = ()
  image_channels: int = 3

  @nn.compact
  def __call__(
    self, latents: Float[AnyArray, "n l"], labels: Int[AnyArray, " n"] | None
  ) -> Float[Array, "n s s 3"]:
    first, *rest = self.features
    classes = self._embed(labels, latents.dtype)
    conditions = [classes] * len(rest)
    if self.hierarchical:
      latents, *pieces = jnp.split(latents, len(rest) + 1, axis=-1)
      conditions = [(*classes, piece) for piece in pieces]

    x = nn.Dense(4 * 4 * first, name="project")(latents).reshape(-1, 4, 4, first)
    for i, (features, parts) in enumerate(zip(rest, conditions, strict=True)):
      condition = jnp.concatenate(parts, axis=-1) if parts else None
      x = Block(features, name=f"block_{i}")(x, condition)  # [N, 8 * 2^i, 8 * 2^i, features]
      if i in self.attention:
        x = layers.SelfAttention(name=f"attention_{i}")(x)
    x = nn.relu(layers.Affine(name="norm")(x))
    return layers.as_rgb(jnp.tanh(nn.Conv(self.image_channels, (3, 3), name="out")(x)))

  def _embed(self, labels: AnyArray | None, dtype: jnp.dtype) -> tuple[jax.Array, ...]:
    """Returns the common part of all conditions: one array `[N, D]`, or none if unconditional."""
    if self.num_classes is None:
      return ()
    if self.shared_size is None:
      # The kernels of the batch norms serve as embeddings.
      return (jax.nn.one_hot(labels, self.num_classes, dtype=dtype),)
    return (nn.Embed(self.num_classes, self.shared_size, name="shared")(labels),)


def build(config: Mapping[str, Any], variables: Variables, identity: str) -> Generator:
  """Builds the generator of a converted file.

  Its config holds `latent_size` and the attributes of `BigGan`.
  """
  hyper_parameters: dict[str, Any] = {
    name: tuple(value) if isinstance(value, list) else value
    for name, value in config.items()
    if name not in ("latent_size", "widths")
  }
  hyper_parameters["features"] = tuple(config["widths"])  # The name in generator files.
  module = BigGan(**hyper_parameters)

  def generate(variables, latents, labels):
    return apply(module, variables, latents, labels).astype(jnp.float32)

  return Generator(
    variables=variables,
    image_size=4 * 2 ** (len(config["widths"]) - 1),
    latent_shape=(config["latent_size"],),
    num_classes=config["num_classes"],
    sample_latents=normal_latents((config["latent_size"],)),
    generate=generate,
    identity=identity,
  )
