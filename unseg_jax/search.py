"""Stage 1: the direction in latent space that lights the foreground and darkens the rest."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.serialization
import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from unseg_jax import directions, losses, masks, parallel, pictures, progress, workdir
from unseg_jax.generators import Generator, sample_at

PICTURE_SHIFTS = (0.0, 2.0, 4.0, 6.0)


@flax.struct.dataclass
class SearchState:
  """The direction `[1, *latent_shape]`, its optimizer's state, and the number of steps taken."""

  direction: jax.Array
  optimizer_state: optax.OptState
  step: jax.Array


def optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
  """Adam with the learning rate of `config.learning_rate` and PyTorch's other defaults."""
  return optax.adam(config.learning_rate, b1=0.9, b2=0.999, eps=1e-8)


def initial_state(config: ml_collections.ConfigDict, direction: jax.Array) -> SearchState:
  """The state before the first step; the direction gets unit norm in each step, and after it."""
  return SearchState(direction, optimizer(config).init(direction), jnp.zeros((), jnp.int32))


def make_step(generator: Generator, config: ml_collections.ConfigDict) -> Callable[..., Any]:
  """Returns the search step, to run under `pmap` (averages over `parallel.AXIS`).

  The step maps a state, the generator's variables, latents `[n, *latent_shape]`, labels `[n]` and
  radii like the latents to the next state and the two weighted losses.
  """

  def weighted_losses(direction, variables, latents, labels, radii):
    images = jax.lax.stop_gradient(generator.generate(variables, latents, labels))
    shift = radii * directions.normalise(direction)
    shifted = generator.generate(variables, latents + shift, labels)
    parts = {
      "outside_circle": config.circle_weight * losses.outside_circle(shifted),
      "sobel_shift": config.sobel_weight * losses.sobel_shift(images, shifted),
    }
    return parts["outside_circle"] + parts["sobel_shift"], parts

  def gradients(direction, variables, *batch):
    return jax.grad(weighted_losses, has_aux=True)(direction, variables, *batch)

  def step(state, variables, *batch):
    if 0 < config.microbatch < len(batch[0]):
      # One after the other, so that only one microbatch's activations are held.
      pieces = jax.tree.map(lambda x: x.reshape(-1, config.microbatch, *x.shape[1:]), batch)
      found = jax.lax.map(lambda piece: gradients(state.direction, variables, *piece), pieces)
      gradient, parts = jax.tree.map(lambda x: x.mean(axis=0), found)
    else:
      gradient, parts = gradients(state.direction, variables, *batch)
    gradient, parts = jax.lax.pmean((gradient, parts), parallel.AXIS)
    updates, optimizer_state = optimizer(config).update(gradient, state.optimizer_state)
    direction = directions.normalise(optax.apply_updates(state.direction, updates))
    return SearchState(direction, optimizer_state, state.step + 1), parts

  return step


def search(
  generator: Generator, config: ml_collections.ConfigDict, key: jax.Array, folder: Path
) -> np.ndarray:
  """Finds a direction; continues from the folder's saved state if there is one.

  Args:
    generator: the pretrained generator.
    config: `config.search` of an experiment.
    key: the typed PRNG key of the experiment's search; step `i` and its element `j` draw from keys
      folded from `i` and `j` alone.
    folder: receives `state.msgpack` as it goes and, at the end, `history.json` and `direction.npy`.

  Returns:
    The direction, `[1, *latent_shape]` float32 with unit norm along axis 1.

  Raises:
    FloatingPointError: a loss became NaN or infinite.
    ValueError: the batch does not split over devices and microbatches.
  """
  parallel.check_divisible("config.search.batch_size", config.batch_size)
  per_device = config.batch_size // parallel.device_count()
  if config.microbatch and per_device % min(config.microbatch, per_device):
    raise ValueError(
      f"config.search.microbatch={config.microbatch} does not divide a device's share of "
      f"config.search.batch_size, {per_device} images; use a divisor of {per_device}"
    )
  start_key, draw_key = jax.random.split(key)
  state = initial_state(config, directions.initial(start_key, generator.latent_shape))
  state, history = _restore(folder, state)
  update = make_step(generator, config)

  def draw_and_step(state, variables, indices):
    step_key = jax.random.fold_in(draw_key, state.step)
    latents, labels = sample_at(generator, step_key, indices)
    radius_key = jax.random.fold_in(step_key, config.batch_size)
    radii = jax.vmap(
      lambda i: directions.sample_radii(jax.random.fold_in(radius_key, i), generator.latent_shape)
    )(indices)
    return update(state, variables, latents, labels, radii)

  step = parallel.pmap(draw_and_step, donate_argnums=(0,))
  variables = parallel.replicate(generator.variables)
  indices = parallel.shard(np.arange(config.batch_size))
  done = int(state.step)
  state = parallel.replicate(state)
  with progress.bar("search", config.steps, done) as bar:
    for i in range(done, config.steps):
      state, parts = step(state, variables, indices)
      parts = {name: float(value) for name, value in parallel.unreplicate(parts).items()}
      if not np.isfinite(sum(parts.values())):
        raise FloatingPointError(
          f"the search's loss is not finite at step {i}: {parts}. Lower "
          f"config.search.learning_rate ({config.learning_rate}); {folder} keeps the state of an "
          "earlier step."
        )
      for name, value in {"step": i, **parts}.items():
        history.setdefault(name, []).append(value)
      bar.set_postfix({name: f"{value:.4f}" for name, value in parts.items()}, refresh=False)
      bar.update()
      if (i + 1) % config.save_every == 0:
        _save(folder, parallel.unreplicate(state), history)
  direction = np.asarray(parallel.unreplicate(state).direction)
  workdir.write_json(folder / "history.json", history)
  with workdir.whole_file(folder / "direction.npy") as temporary, open(temporary, "wb") as file:
    np.save(file, direction)
  return direction


def _save(folder: Path, state: SearchState, history: Mapping[str, list]) -> None:
  with workdir.whole_file(folder / "state.msgpack") as temporary:
    contents = {"state": flax.serialization.to_state_dict(jax.device_get(state))}
    history = {name: np.asarray(values) for name, values in history.items()}
    temporary.write_bytes(flax.serialization.msgpack_serialize(contents | {"history": history}))


def _restore(folder: Path, fresh: SearchState) -> tuple[SearchState, dict[str, list]]:
  path = folder / "state.msgpack"
  if not path.exists():
    return fresh, {}
  contents = flax.serialization.msgpack_restore(path.read_bytes())
  history = {name: values.tolist() for name, values in contents["history"].items()}
  return flax.serialization.from_state_dict(fresh, contents["state"]), history


def direction_picture(
  generator: Generator, direction: np.ndarray, key: jax.Array, shift: float, rows: int = 6
) -> np.ndarray:
  """Draws what the direction does: each row one latent at shifts 0, 2, 4, 6, then its mask.

  Args:
    generator: the pretrained generator.
    direction: `[1, *latent_shape]`.
    key: the latents' key.
    shift: the length of the shift behind the mask (light where it lightens the picture).
    rows: number of latents.

  Returns:
    `[H, W, 3]` uint8.
  """
  latents, labels = sample_at(generator, key, jnp.arange(rows))
  generate = parallel.jit(
    lambda variables, radius: generator.generate(variables, latents + radius * direction, labels)
  )
  columns = [generate(generator.variables, jnp.float32(radius)) for radius in PICTURE_SHIFTS]
  shifted = generate(generator.variables, jnp.float32(shift))
  light = masks.lighting_mask(columns[0], shifted)
  columns.append(jnp.broadcast_to(jnp.where(light[..., None], 1.0, -1.0), shifted.shape))
  cells = jnp.stack(columns, axis=1).reshape(-1, *shifted.shape[1:])
  return pictures.grid(pictures.to_uint8(np.asarray(cells)), columns=len(columns))
