"""Searches for the latent direction that lightens the foreground and darkens the background."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import flax.serialization
import jax
import ml_collections
import numpy as np

from unseg_jax.array_types import Array, Float, Key
from unseg_jax.direction import directions
from unseg_jax.direction.step import SearchState, initial_state, make_drawing_step
from unseg_jax.errors import InvalidValue, NotFinite
from unseg_jax.generators import Generator, check_dtype, with_dtype
from unseg_jax.runtime import parallel, preemption, progress, settings, tracking
from unseg_jax.storage import whole_files

# The search fetches losses and checks for preemption once every this many steps.
LOOK_EVERY = 10
# Snapshots are taken at the total number of steps halved up to this often, because a direction
# changes most in the early steps.
HALVINGS = 6


@dataclasses.dataclass(frozen=True)
class SearchResult:
  """The result of a search with R restarts of K directions.

  Attributes:
    directions: float32, with unit norm along the first axis of a latent.
    losses: the weighted losses by name, float32.
    snapshots: the directions after selected steps (`snapshot_steps`), by step number. Searches
      started by an older version lack the earliest snapshots.
  """

  directions: Float[np.ndarray, "r k *latent_shape"]
  losses: dict[str, Float[np.ndarray, "steps r k"]]
  snapshots: dict[int, Float[np.ndarray, "r k *latent_shape"]]

  def history(self, restart: int) -> dict[str, list[float]]:
    """Returns the curves of one restart; with two directions, `light ` or `dark ` starts a name."""
    count = self.directions.shape[1]
    steps = len(next(iter(self.losses.values())))
    return {"step": list(range(steps))} | {
      prefix + name: values[:, restart, k].tolist()
      for k, prefix in enumerate(_prefixes(count))
      for name, values in self.losses.items()
    }


def check_config(config: ml_collections.ConfigDict) -> None:
  """Raises a ValueError for invalid settings in `config.search`."""
  if config.directions not in (1, 2):
    raise InvalidValue(
      f"config.search.directions={config.directions}: expected 1 (light) or 2 (light and dark)"
    )
  settings.check_counts("search", config, "steps", "restarts", "save_every")
  settings.check("search", config, ("microbatch", "at least 0", config.microbatch >= 0))
  check_dtype("config.search.dtype", config.dtype)


def check_batch(config: ml_collections.ConfigDict) -> None:
  """Raises a ValueError unless the batch divides evenly into devices and microbatches."""
  parallel.check_divisible("config.search.batch_size", config.batch_size)
  per_device = config.batch_size // parallel.device_count()
  if config.microbatch and per_device % min(config.microbatch, per_device):
    raise InvalidValue(
      f"config.search.microbatch={config.microbatch} does not divide a device's share of "
      f"config.search.batch_size, {per_device} images; use a divisor of {per_device}"
    )


def snapshot_steps(steps: int) -> list[int]:
  """Returns the step numbers, at most 8, at which a search of `steps` steps keeps its directions.

  They are 0, `steps`, and `steps` repeatedly halved.
  """
  return sorted({0, *(steps >> halvings for halvings in range(HALVINGS + 1))})


def search(
  generator: Generator,
  config: ml_collections.ConfigDict,
  key: Key[Array, ""],
  folder: Path,
  events: tracking.EventWriter = tracking.SILENT,
) -> SearchResult:
  """Searches for directions, and resumes from the state saved in the folder, if any.

  Args:
    generator: the pretrained generator.
    config: `config.search` of an experiment.
    key: the typed PRNG key of the search. Element `j` of step `i` uses a key folded from only `i`
      and `j`.
    folder: receives `state.msgpack` during the search.
    events: receives the losses, the gradient norm and the speed during the search.

  Raises:
    FloatingPointError: a loss is NaN or infinite.
    ValueError: the batch does not divide evenly into devices and microbatches.
    preemption.Preempted: the run was asked to stop; its state is saved.
  """
  check_config(config)
  check_batch(config)
  generator = with_dtype(generator, config.dtype)
  start_key, draw_key = jax.random.split(key)
  count = config.restarts * config.directions
  start = directions.initial(start_key, count, generator.latent_shape)
  start = start.reshape(config.restarts, config.directions, *generator.latent_shape)
  state, history, snapshots = _restore(folder, initial_state(config, start))
  step = parallel.pmap(make_drawing_step(generator, config, draw_key), donate_argnums=(0,))
  variables = parallel.replicate(generator.variables)
  indices = parallel.spread(parallel.shard(parallel.own_part(np.arange(config.batch_size))))
  done = int(state.step)
  if not done:
    snapshots[0] = jax.device_get(jax.vmap(directions.normalise)(state.directions))
  kept_steps = snapshot_steps(config.steps)
  state, waiting = parallel.replicate(state), []
  if done < config.steps:
    events.restart(done)
  watch = tracking.Stopwatch()
  with progress.bar("search", config.steps, done) as bar:
    for i in range(done + 1, config.steps + 1):
      state, parts, norm = step(state, variables, indices)
      waiting.append((parts, norm))
      bar.update()
      if i in kept_steps:  # Copied before the next step, which reuses the state's memory.
        snapshots[i] = parallel.unreplicate(state.directions)
      save = i % config.save_every == 0 or i == config.steps
      # Wait for the device only at the steps where processes agree on what to do next.
      if save or i % LOOK_EVERY == 0 or preemption.leaving_alone():
        _record(history, waiting, i, config, folder, events)
        speed = watch.rates(steps=len(waiting), pictures=len(waiting) * config.batch_size)
        # The search makes its batches on the devices and never waits for data.
        del speed["fraction_waiting"]
        events.point(i - 1, {"learning_rate": config.learning_rate} | speed)
        events.flush(publish=save)
        waiting = []
        bar.set_postfix(_latest(history), refresh=False)
        leaving = preemption.anyone_leaving()
        if save or leaving:
          _save(folder, state, history, snapshots)
        if leaving and i < config.steps:
          preemption.leave(f"the search is saved at step {i} of {config.steps}")
  losses = {name: np.asarray(values, np.float32) for name, values in history.items()}
  return SearchResult(parallel.unreplicate(state.directions), losses, snapshots)


def _record(
  history: dict[str, list[np.ndarray]],
  waiting: Sequence[tuple[Mapping[str, jax.Array], jax.Array]],
  steps: int,
  config: ml_collections.ConfigDict,
  folder: Path,
  events: tracking.EventWriter,
) -> None:
  """Appends the latest losses to the history; raises NotFinite if one is not finite."""
  for i, (parts, norm) in enumerate(parallel.unreplicate(waiting), start=steps - len(waiting)):
    events.point(i, _curves(parts, norm))
    if not all(np.isfinite(values).all() for values in parts.values()):
      events.flush(publish=True)
      shown = {name: values.tolist() for name, values in parts.items()}
      raise NotFinite(
        f"the search's loss is not finite at step {i}: {shown}. Lower "
        f"config.search.learning_rate ({config.learning_rate}); {folder} keeps the state of an "
        "earlier step."
      )
    for name, values in parts.items():
      history.setdefault(name, []).append(values)


def _curves(parts: Mapping[str, np.ndarray], norm: np.ndarray) -> dict[str, float]:
  """Returns a step's losses and gradient norms by curve name, as in `SearchResult.history`."""
  points = {}
  for restart, length in enumerate(norm.tolist()):
    outer = f"restart-{restart}/" if len(norm) > 1 else ""
    points[f"{outer}gradient_norm"] = length
    for name, values in parts.items():
      for inner, value in zip(_prefixes(values.shape[1]), values[restart].tolist(), strict=True):
        points[outer + inner + name] = value
  return points


def _prefixes(count: int) -> list[str]:
  """Returns the prefixes of curve names for `count` directions."""
  return [f"{name} " for name in directions.NAMES[:count]] if count > 1 else [""]


def _latest(history: Mapping[str, Sequence[np.ndarray]]) -> dict[str, str]:
  """Returns each loss of the last step, averaged over restarts and directions."""
  return {name: f"{np.mean(values[-1]):.4f}" for name, values in history.items()}


def _save(
  folder: Path,
  state: SearchState,
  history: Mapping[str, list],
  snapshots: Mapping[int, np.ndarray],
) -> None:
  """Fetches a replicated state and writes it together with the history and the snapshots."""
  if not parallel.is_primary():
    return
  contents = {
    "state": flax.serialization.to_state_dict(parallel.unreplicate(state)),
    "history": {name: np.asarray(values) for name, values in history.items()},
    "snapshots": {str(step): snapshot for step, snapshot in snapshots.items()},
  }
  whole_files.write_bytes(folder / "state.msgpack", flax.serialization.msgpack_serialize(contents))


def _restore(
  folder: Path, fresh: SearchState
) -> tuple[SearchState, dict[str, list], dict[int, np.ndarray]]:
  path = folder / "state.msgpack"
  if not path.exists():
    return fresh, {}, {}
  contents = flax.serialization.msgpack_restore(path.read_bytes())
  history = {name: list(values) for name, values in contents["history"].items()}
  # Older versions saved no snapshots.
  snapshots = {int(step): array for step, array in contents.get("snapshots", {}).items()}
  return flax.serialization.from_state_dict(fresh, contents["state"]), history, snapshots
