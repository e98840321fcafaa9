"""A generator that is created instantly and whose gradients are simple."""

import jax.numpy as jnp
import numpy as np

from unseg_jax import generators


def tiny_generator(gain=1.0):
  """Returns a generator of 8 x 8 images that are a smooth function of 6 numbers."""
  shape = (6, 8, 8, 3)
  return generators.Generator(
    variables={"kernel": gain * np.random.default_rng(0).normal(size=shape).astype(np.float32)},
    image_size=8,
    latent_shape=(6,),
    num_classes=None,
    sample_latents=generators.normal_latents((6,)),
    generate=lambda variables, latents, labels: jnp.tanh(
      jnp.tensordot(latents, variables["kernel"], 1)
    ),
    identity="tiny",
  )
