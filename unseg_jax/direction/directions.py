"""Directions in latent space: initialisation and normalisation."""

import jax
import jax.numpy as jnp
import numpy as np

from unseg_jax.array_types import AnyArray, Array, Float, Key

# Every search finds `light`, which lightens the centre of an image and darkens its border.
# With two directions, it also finds `dark`, which does the opposite.
NAMES = ("light", "dark")
SIGNS = (1.0, -1.0)  # Signs of the `outside_circle` loss for `light` and `dark`.


def initial(
  key: Key[Array, ""], count: int, latent_shape: tuple[int, ...]
) -> Float[Array, " {count} *latent_shape"]:
  """Draws directions from N(0, 0.1^2)."""
  return jax.device_put(np.float32(0.1)) * jax.random.normal(
    key, (count, *latent_shape), np.float32
  )


def normalise(
  directions: Float[AnyArray, " k *latent_shape"],
) -> Float[Array, " k *latent_shape"]:
  """Scales K directions to unit L2 norm along axis 1.

  A latent vector is normalised as it is. StyleGAN2's latents are `[K, num_ws, w_dim]`, where axis 1
  is the layer axis: every component of `w` has unit norm over the layers, as in the reference
  implementation.
  """
  return directions / jnp.linalg.norm(directions, axis=1, keepdims=True)


def sample_radii(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
  """Draws the shift length of each latent element from `max(N(2, 0.5^2), 0.1)`."""
  return jnp.maximum(2.0 + 0.5 * jax.random.normal(key, shape, jnp.float32), 0.1)
