"""A golden StyleGAN2, and smaller random ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from whole_runs import GOLDEN

from checkpoints_convert import stylegan2 as conversion
from checkpoints_convert import torch_reader
from unseg_jax.generators import stylegan2


@functools.cache
def golden():
  return dict(np.load(GOLDEN / "stylegan2.npz"))


def golden_checkpoint(**changes):
  """The small network's state dict with keys replaced, or removed for None."""
  arrays = torch_reader.read(GOLDEN / "stylegan2.pth") | changes
  return {key: array for key, array in arrays.items() if array is not None}


@functools.cache
def converted():
  return conversion.convert(golden_checkpoint(), {})


@functools.cache
def make_generator(**options):
  _, config, variables = converted()
  return stylegan2.build({**config, **options}, variables, "small")


def make_images(generator, latents):
  labels = jnp.zeros(len(latents), jnp.int32)
  with jax.default_matmul_precision("highest"):
    return jax.jit(generator.generate)(generator.variables, latents, labels)


def random_state(num_classes=0, z_dim=6, w_dim=7, class_features=5, channels=(4, 3)):
  """A state dict with every array of a network, random and with different sizes."""
  random = np.random.default_rng(0)
  size_in = z_dim + (class_features if num_classes else 0)
  shapes = {"mapping.w_avg": (w_dim,), "synthesis.b4.const": (channels[0], 4, 4)}
  shapes |= {"mapping.fc0.weight": (8, size_in), "mapping.fc0.bias": (8,)}
  shapes |= {"mapping.fc1.weight": (w_dim, 8), "mapping.fc1.bias": (w_dim,)}
  if num_classes:
    shapes |= {"mapping.embed.weight": (class_features, num_classes)}
    shapes |= {"mapping.embed.bias": (class_features,)}
  for i, size_out in enumerate(channels):
    block, side = f"synthesis.b{4 * 2**i}", 4 * 2**i
    layers = {"conv1": (size_out, size_out, 3), "torgb": (size_out, 3, 1)}
    if i:
      layers["conv0"] = (channels[i - 1], size_out, 3)
    for layer, (size_in, features, kernel) in layers.items():
      name = f"{block}.{layer}"
      shapes[f"{name}.weight"] = (features, size_in, kernel, kernel)
      shapes |= {f"{name}.bias": (features,), f"{name}.affine.bias": (size_in,)}
      shapes[f"{name}.affine.weight"] = (size_in, w_dim)
      if layer != "torgb":
        shapes |= {f"{name}.noise_const": (side, side), f"{name}.noise_strength": ()}
  state = {key: np.asarray(random.normal(size=shape)) for key, shape in shapes.items()}
  taps = np.outer((1, 3, 3, 1), (1, 3, 3, 1)) / 64
  for i in range(len(channels)):
    block = f"synthesis.b{4 * 2**i}"
    filtered = (block, f"{block}.conv1", *([f"{block}.conv0"] if i else []))
    state |= {f"{name}.resample_filter": taps for name in filtered}
  return state


@functools.cache
def small_generator(noise="const"):
  _, config, variables = conversion.convert(random_state(), {})
  return stylegan2.build({**config, "noise": noise}, variables, "smaller")


def small_latents():
  return np.random.default_rng(2).normal(size=(2, 4, 7)).astype(np.float32)
