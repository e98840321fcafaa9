"""DCGAN (Radford, Metz, Chintala, arXiv 1511.06434), as in PyTorch's tutorial.

Its batch norms are folded into the kernels and biases when a checkpoint is converted.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from unseg_jax.generators import layers


class Dcgan(nn.Module):
  """Maps latents `[N, latent_size]` to images `[N, S, S, channels]` in [-1, 1].

  The side S is `4 * 2 ** len(widths)`: 64 for the four widths of the tutorial's network.
  """

  widths: tuple[int, ...] = (512, 256, 128, 64)
  channels: int = 3

  @nn.compact
  def __call__(self, latents: jax.Array) -> jax.Array:
    x = layers.Projection(4, self.widths[0], name="project")(latents)
    last = len(self.widths) - 1
    for i, features in enumerate((*self.widths[1:], self.channels)):
      x = nn.relu(x)
      # [N, 4 * 2^i, 4 * 2^i, widths[i]] -> [N, 8 * 2^i, 8 * 2^i, features]
      x = layers.DoublingConvolution(features, use_bias=i < last, name=f"upsample_{i}")(x)
    return jnp.tanh(x)
