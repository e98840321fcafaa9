"""The residual generator of self-conditioned GANs (Liu et al., CVPR 2020, arXiv 2006.10728).

It is upstream's `gan_training/models/resnet2.py`, built on GAN-stability (Mescheder et al., arXiv
1801.04406), without normalisation and with residual branches scaled by 0.1. Conversion folds this
scaling into the weights, and also the projection of class embeddings onto the unit sphere.
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


def _activate(x: Array) -> jax.Array:
  return nn.leaky_relu(x, 0.2)


class ResidualBlock(nn.Module):
  """Two 3 x 3 convolutions, each after an activation; with `up`, pixels are repeated first."""

  features: int
  up: bool

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"]
  ) -> Float[Array, "n {1+self.up}*h {1+self.up}*w {self.features}"]:
    channels = x.shape[-1]
    y, inner = _activate(x), min(channels, self.features)
    if self.up:
      y = layers.UpsampledConvolution(inner, name="conv_0")(y)
    else:
      y = nn.Conv(inner, (3, 3), name="conv_0")(y)
    y = nn.Conv(self.features, (3, 3), name="conv_1")(_activate(y))
    return y + self._shortcut(x)

  def _shortcut(self, x: Array) -> Array:
    if x.shape[-1] == self.features:
      return layers.upsample_nearest(x) if self.up else x
    if self.up:
      return layers.UpsampledConvolution(self.features, 1, use_bias=False, name="shortcut")(x)
    return nn.Dense(self.features, use_bias=False, name="shortcut")(x)


class SelfConditionedGenerator(nn.Module):
  """Maps latents and labels to images in [-1, 1] of side `size * 2 ** (len(features) - 1)`.

  Attributes:
    features: channels of each stage of two residual blocks; the resolution doubles between stages.
    size: side of the first stage, in pixels.
    num_classes: number of classes, or None if the generator is unconditional.
    embedding_size: length of a class embedding, which is appended to the latent.
    image_channels: channels of the last layer: 1 (grey), 3 (RGB) or 4 (RGBA).
  """

  features: tuple[int, ...] = (1024, 1024, 512, 256, 128, 64)
  size: int = 4
  num_classes: int | None = None
  embedding_size: int | None = None
  image_channels: int = 3

  @nn.compact
  def __call__(
    self, latents: Float[AnyArray, "n l"], labels: Int[AnyArray, " n"] | None
  ) -> Float[Array, "n s s 3"]:
    x = latents
    if self.num_classes is not None and self.embedding_size is not None:
      embedding = nn.Embed(self.num_classes, self.embedding_size, name="embedding")(labels)
      x = jnp.concatenate([x, embedding.astype(x.dtype)], axis=-1)  # [N, L + embedding_size]
    x = nn.Dense(self.size**2 * self.features[0], name="project")(x)
    x = x.reshape(-1, self.size, self.size, self.features[0])
    for i, features in enumerate(self.features):
      # [N, size * 2^i, size * 2^i, features]
      x = ResidualBlock(features, i > 0, name=f"block_{i}_0")(x)
      x = ResidualBlock(features, False, name=f"block_{i}_1")(x)
    images = nn.Conv(self.image_channels, (3, 3), name="image")(_activate(x))
    return layers.as_rgb(jnp.tanh(images))


def build(config: Mapping[str, Any], variables: Variables, identity: str) -> Generator:
  """Builds the generator of a converted file.

  Its config holds `latent_size` and the attributes of `SelfConditionedGenerator`. `num_classes` and
  `embedding_size` are null for an unconditional generator.
  """
  features = tuple(config["widths"])  # The name in generator files.
  module = SelfConditionedGenerator(
    features=features,
    size=config["size"],
    num_classes=config["num_classes"],
    embedding_size=config["embedding_size"],
    image_channels=config.get("image_channels", 3),
  )
  return Generator(
    variables=variables,
    image_size=config["size"] * 2 ** (len(features) - 1),
    latent_shape=(config["latent_size"],),
    num_classes=config["num_classes"],
    sample_latents=normal_latents((config["latent_size"],)),
    generate=lambda variables, latents, labels: apply(module, variables, latents, labels).astype(
      jnp.float32
    ),
    identity=identity,
  )
