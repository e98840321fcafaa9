"""One step of the search: sampling, losses and update (arXiv 2105.08127, section 3.1).

This module does no file I/O. `search.py` runs the steps and saves their state.
"""

from collections.abc import Callable
from typing import Any, no_type_check

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from unseg_jax.array_types import AnyArray, Array, Float, Int, Key
from unseg_jax.direction import directions, losses
from unseg_jax.generators import Generator, sample_at
from unseg_jax.runtime import parallel


# Field types are not checked at run time: JAX also puts shapes and placeholders into pytrees.
@no_type_check
@flax.struct.dataclass
class SearchState:
  """The state of a search.

  Attributes:
    directions: R restarts of K directions, `[R, K, *latent_shape]`.
    optimizer_state: the state of Adam.
    step: number of completed steps.
  """

  directions: jax.Array
  optimizer_state: optax.OptState
  step: AnyArray


def optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
  """Returns Adam with the rate `config.learning_rate` and PyTorch's other default settings."""
  return optax.adam(config.learning_rate, b1=0.9, b2=0.999, eps=1e-8)


def initial_state(
  config: ml_collections.ConfigDict, start: Float[Array, "r k *latent_shape"]
) -> SearchState:
  """Returns the state before the first step. `start` may have directions of any length."""
  return SearchState(start, jax.jit(optimizer(config).init)(start), np.zeros((), np.int32))


def make_step(generator: Generator, config: ml_collections.ConfigDict) -> Callable[..., Any]:
  """Returns the step of `make_measured_step` without the gradient norm."""
  step = make_measured_step(generator, config)
  return lambda *args: step(*args)[:2]


def make_measured_step(
  generator: Generator, config: ml_collections.ConfigDict
) -> Callable[..., Any]:
  """Returns the search step, to run under `pmap` (it averages over `parallel.AXIS`).

  The step takes a state, the generator's variables, latents `[n, *latent_shape]`, labels `[n]` and
  radii shaped like the latents. It returns the next state, the two weighted losses, each `[R, K]`,
  and the gradient norm, `[R]`. All restarts use the same latents. Their losses are therefore
  comparable, and `G(z)` is computed only once.
  """

  def weighted_losses(current, images, variables, latents, labels, radii):
    def one(direction, sign):
      shifted = generator.generate(variables, latents + radii * direction[None], labels)
      return {
        "outside_circle": sign * config.circle_weight * losses.outside_circle(shifted),
        "sobel_shift": config.sobel_weight * losses.sobel_shift(images, shifted),
      }

    signs = jnp.array(directions.SIGNS[: len(current)], jnp.float32)
    parts = jax.vmap(one)(directions.normalise(current), signs)
    return sum(part.sum() for part in parts.values()), parts

  def gradients(current, variables, latents, labels, radii):
    images = generator.generate(variables, latents, labels)
    gradient = jax.grad(weighted_losses, has_aux=True)
    fixed = (images, variables, latents, labels, radii)
    return jax.vmap(gradient, in_axes=(0, *[None] * len(fixed)))(current, *fixed)

  def step(state, variables, *batch):
    if 0 < config.microbatch < len(batch[0]):
      # Sequential, so that only one microbatch's activations are in memory.
      pieces = jax.tree.map(lambda x: x.reshape(-1, config.microbatch, *x.shape[1:]), batch)
      every = jax.lax.map(lambda piece: gradients(state.directions, variables, *piece), pieces)
      gradient, parts = jax.tree.map(lambda x: x.mean(axis=0), every)
    else:
      gradient, parts = gradients(state.directions, variables, *batch)
    gradient, parts = jax.lax.pmean((gradient, parts), parallel.AXIS)
    updates, optimizer_state = optimizer(config).update(gradient, state.optimizer_state)
    moved = jax.vmap(directions.normalise)(optax.apply_updates(state.directions, updates))
    norm = jax.vmap(optax.tree.norm)(gradient)
    return SearchState(moved, optimizer_state, state.step + 1), parts, norm

  return step


def make_drawing_step(
  generator: Generator, config: ml_collections.ConfigDict, key: Key[Array, ""]
) -> Callable[..., Any]:
  """Returns the search step that samples its own batch, to run under `pmap`.

  The step takes a state, the generator's variables and the elements' indices in the global batch.
  It returns the same values as the step of `make_measured_step`.

  Args:
    generator: the pretrained generator.
    config: `config.search` of an experiment.
    key: the PRNG key of the samples.
  """
  update = make_measured_step(generator, config)

  def draw_and_step(state, variables, indices):
    step_key = jax.random.fold_in(key, state.step)
    return update(state, variables, *draw(generator, config, step_key, indices))

  return draw_and_step


def draw(
  generator: Generator,
  config: ml_collections.ConfigDict,
  key: Key[Array, ""],
  indices: Int[AnyArray, " n"],
) -> tuple[Float[Array, " n *latent_shape"], Int[Array, " n"], Float[Array, " n *latent_shape"]]:
  """Samples elements of a step's batch: latents, labels, and radii shaped like the latents.

  Args:
    generator: the generator whose prior is sampled.
    config: `config.search` of an experiment.
    key: the PRNG key of the step.
    indices: the elements' indices in the global batch.
  """
  latents, labels = sample_at(generator, key, indices)
  radius_key = jax.random.fold_in(key, config.batch_size)
  radii = jax.vmap(
    lambda i: directions.sample_radii(jax.random.fold_in(radius_key, i), generator.latent_shape)
  )(indices)
  return latents, labels, radii
