"""Directions in latent space: how they start, and how they stay at unit length."""

import jax
import jax.numpy as jnp
import numpy as np

from unseg_jax.array_types import AnyArray, Array, Float, Key

# A run searches for `light`, which lightens the middle and darkens the surround, and on request for
# `dark`, which does the opposite.
NAMES = ("light", "dark")
SIGNS = (1.0, -1.0)  # Of the weight of the loss `outside_circle`.


def initial(
  key: Key[Array, ""], count: int, latent_shape: tuple[int, ...]
) -> Float[Array, " {count} *latent_shape"]:
  """Draws directions from N(0, 0.1^2)."""
  return jax.device_put(np.float32(0.1)) * jax.random.normal(key, (count, *latent_shape))


def normalise(
  directions: Float[AnyArray, " k *latent_shape"],
) -> Float[Array, " k *latent_shape"]:
  """Scales K directions to unit L2 norm along axis 1.

  For a latent vector, axis 1 is the vector. For StyleGAN2's `[K, num_ws, w_dim]` it is the layer
  axis: every component of `w` has unit norm over the layers, as in the reference implementation.
  """
  return directions / jnp.linalg.norm(directions, axis=1, keepdims=True)


def sample_radii(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
  """Draws the length of the shift for every element of a latent: `max(N(2, 0.5^2), 0.1)`."""
  return jnp.maximum(2.0 + 0.5 * jax.random.normal(key, shape), 0.1)
