"""Directions in latent space: how they start, and how they stay at unit length."""

import jax
import jax.numpy as jnp


def initial(key: jax.Array, latent_shape: tuple[int, ...]) -> jax.Array:
  """Draws a direction `[1, *latent_shape]` from N(0, 0.1^2)."""
  return 0.1 * jax.random.normal(key, (1, *latent_shape))


def normalise(direction: jax.Array) -> jax.Array:
  """Scales a direction to unit L2 norm along axis 1.

  For a latent vector, axis 1 is the vector. For StyleGAN2's `[1, num_ws, w_dim]` it is the layer
  axis: every component of `w` has unit norm over the layers, as in the reference implementation.
  """
  return direction / jnp.linalg.norm(direction, axis=1, keepdims=True)


def sample_radii(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Draws the length of the shift for every element of a latent: `max(N(2, 0.5^2), 0.1)`."""
  return jnp.maximum(2.0 + 0.5 * jax.random.normal(key, shape), 0.1)
