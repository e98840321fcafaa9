"""DCGAN (Radford, Metz, Chintala, arXiv 1511.06434), as in PyTorch's tutorial.

Conversion folds batch norms into the kernels and biases.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from unseg_jax.array_types import AnyArray, Array, Float
from unseg_jax.generators import layers
from unseg_jax.generators.base import Generator, Variables, apply, normal_latents

# Config entries that can be overridden at load time.
OPTIONS = ()


class Dcgan(nn.Module):
  """Maps latents to images in [-1, 1].

  The image side is `4 * 2 ** len(features)` pixels: 64 for the four layers of the tutorial's
  network. `channels` is 1 (grey), 3 (RGB) or 4 (RGBA); images are always converted to RGB.
  """

  features: tuple[int, ...] = (512, 256, 128, 64)
  channels: int = 3

  @nn.compact
  def __call__(self, latents: Float[AnyArray, "n l"]) -> Float[Array, "n s s 3"]:
    x = layers.Projection(4, self.features[0], name="project")(latents)
    last = len(self.features) - 1
    for i, features in enumerate((*self.features[1:], self.channels)):
      x = nn.relu(x)
      # [N, 4 * 2^i, 4 * 2^i, features[i]] -> [N, 8 * 2^i, 8 * 2^i, features]
      x = layers.DoublingConvolution(features, use_bias=i < last, name=f"upsample_{i}")(x)
    return layers.as_rgb(jnp.tanh(x))


def build(config: Mapping[str, Any], variables: Variables, identity: str) -> Generator:
  """Builds the generator of a converted file; its config is `latent_size, widths, channels`."""
  module = Dcgan(features=tuple(config["widths"]), channels=config["channels"])
  return Generator(
    variables=variables,
    image_size=4 * 2 ** len(config["widths"]),
    latent_shape=(config["latent_size"],),
    num_classes=None,
    sample_latents=normal_latents((config["latent_size"],)),
    generate=lambda variables, latents, labels: apply(module, variables, latents),
    identity=identity,
  )
