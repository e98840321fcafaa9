"""Layers that several generators share."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Projection(nn.Module):
  """Turns latents `[N, L]` into a small picture `[N, size, size, features]`.

  A transposed convolution of a single pixel: one matrix product, and one bias for each channel.
  """

  size: int
  features: int

  @nn.compact
  def __call__(self, latents: jax.Array) -> jax.Array:
    shape = (latents.shape[-1], self.size, self.size, self.features)
    kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
    return jnp.tensordot(latents, kernel.astype(latents.dtype), 1) + bias.astype(latents.dtype)


class DoublingConvolution(nn.Module):
  """Transposed 4 x 4 convolution with stride 2 and padding 1: `[N, H, W, C] -> [N, 2H, 2W, F]`.

  The same as PyTorch's `ConvTranspose2d(C, F, 4, stride=2, padding=1)`, with its kernel stored as
  `[4, 4, C, F]`, not flipped. It is computed in four phases, one for each parity of the output's
  row and column: every output pixel sees just a 2 x 2 window of the input, so a phase is a plain
  2 x 2 convolution, and no multiplication with inserted zeros is done.
  """

  features: int
  use_bias: bool = True

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    batch, height, width, channels = x.shape
    kernel = self.param(
      "kernel", nn.initializers.lecun_normal(), (4, 4, channels, self.features), jnp.float32
    )
    phases = jnp.stack(
      [
        jnp.stack([_phase(x, kernel.astype(x.dtype), row, column) for column in (0, 1)], axis=3)
        for row in (0, 1)
      ],
      axis=2,
    )  # [N, H, 2, W, 2, F]
    x = phases.reshape(batch, 2 * height, 2 * width, self.features)
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
      x = x + bias.astype(x.dtype)
    return x


def _phase(x: jax.Array, kernel: jax.Array, row: int, column: int) -> jax.Array:
  """The output pixels whose row is `row` and whose column is `column`, modulo 2.

  Output row `2i - 1 + k` receives input row `i` times kernel row `k`: even rows see the inputs
  `i - 1` and `i` through `k = 3, 1`, odd rows see `i` and `i + 1` through `k = 2, 0`.
  """
  taps = ((3, 1), (2, 0))
  padding = ((1, 0), (0, 1))
  window = kernel[jnp.array(taps[row])][:, jnp.array(taps[column])]
  return jax.lax.conv_general_dilated(
    x,
    window,
    window_strides=(1, 1),
    padding=(padding[row], padding[column]),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
