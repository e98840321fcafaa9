"""Cases of several benchmarks: the face generator's settings, the search step, noise pairs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from common import experiments
from unseg_jax import default_config
from unseg_jax.direction import directions, step
from unseg_jax.generators import Generator
from unseg_jax.runtime import parallel

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"


def faces_config() -> ml_collections.ConfigDict:
  """Returns the face config with only the filters of the reference implementation."""
  config = default_config.with_types(experiments.load("dcgan_faces.py"))
  config.generate.roundness = 0.0
  return config


def faces_direction() -> np.ndarray:
  """Returns the reference implementation's direction `[1, 100]` for the face generator."""
  return np.load(GOLDEN / "search_dcgan_faces.npz")["d"][-1:]


def draw(
  generator: Generator, config: ml_collections.ConfigDict, number: jax.Array, indices: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns the latents, labels and radii of these batch elements in search step `number`."""
  return step.draw(generator, config, jax.random.fold_in(jax.random.key(1), number), indices)


def search_step(generator: Generator, config: ml_collections.ConfigDict) -> Callable[..., Any]:
  """Returns the search step with its random draws, of (state, variables, indices), for `pmap`."""
  update = step.make_step(generator, config)

  def draw_and_step(state, variables, indices):
    return update(state, variables, *draw(generator, config, state.step, indices))

  return draw_and_step


def search_state(
  generator: Generator, config: ml_collections.ConfigDict, restarts: int
) -> step.SearchState:
  """Returns the initial state of a search, with random directions."""
  shape = (restarts, config.directions, *generator.latent_shape)
  start = directions.initial(jax.random.key(0), restarts * config.directions, shape[2:])
  return step.initial_state(config, start.reshape(shape))


def search_arguments(
  generator: Generator, config: ml_collections.ConfigDict, restarts: int
) -> tuple[step.SearchState, Any, np.ndarray]:
  """Returns state, variables and batch indices for `search_step`, spread over all devices."""
  state, variables = parallel.replicate(
    (search_state(generator, config, restarts), generator.variables)
  )
  return state, variables, parallel.shard(np.arange(config.batch_size))


def noise_pairs(config: ml_collections.ConfigDict) -> dict[str, np.ndarray]:
  """Returns a batch of noise for the training step of `config.train`."""
  shape = (config.batch_size, config.image_size, config.image_size)
  random = np.random.default_rng(0)
  return {
    "image": random.integers(0, 256, (*shape, 3), np.uint8),
    "mask": 255 * random.integers(0, 2, (*shape, 1), np.uint8),
    "position": np.arange(config.batch_size),
  }
