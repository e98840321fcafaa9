"""Stage 3 trains a U-Net on the synthetic pairs."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from unseg_jax.array_types import Array, Key, UInt8
from unseg_jax.artifacts import checkpoints
from unseg_jax.runtime import parallel, preemption, progress, tracking
from unseg_jax.segmentation.curves import Curves, TooFewPairs
from unseg_jax.segmentation.step import (
  Batch,
  TrainState,
  initial_state,
  make_measured_step,
  schedule,
)


def train(
  config: ml_collections.ConfigDict,
  pairs: Callable[[TrainState], Iterator[Batch]],
  validate: Callable[[Mapping[str, Any]], dict[str, float]],
  key: Key[Array, ""],
  folder: Path,
  start: Mapping[str, Any] | None = None,
  events: tracking.EventWriter = tracking.SILENT,
  draw: Callable[[Mapping[str, Any]], UInt8[np.ndarray, "n h w 3"]] | None = None,
) -> None:
  """Trains the segmenter, and resumes from the folder's last checkpoint, if any.

  Args:
    config: `config.train` of an experiment.
    pairs: returns the batches that follow a state, such as `batches.from_disk` or
      `on_the_fly.batches` with their other arguments bound. Batches from the host are copied to the
      devices while the previous step runs.
    validate: scores a U-Net's `params` and `batch_stats` on its own pairs. The score `iou` selects
      the best checkpoint.
    key: the PRNG key of the training.
    folder: receives `checkpoints/` (orbax; the best by validation IoU, and the last) and
      `history.json`.
    start: the U-Net's `params` and `batch_stats` to start from; None initialises new ones.
    events: receives the loss, the learning rate, the gradient norm, the speed and the fraction of
      time spent waiting for pairs. At each checkpoint it also receives the scores.
    draw: draws a U-Net's predictions for a few images, for the events of each checkpoint.

  Raises:
    FloatingPointError: the loss is NaN or infinite; names the step and the last checkpoint.
    TooFewPairs: on-the-fly pairs run out.
    preemption.Preempted: the run was asked to stop; a checkpoint of the current step is saved.
  """
  parallel.check_divisible("config.train.batch_size", config.batch_size)
  init_key, augment_key, _ = jax.random.split(key, 3)
  state = initial_state(config, init_key, start)
  with checkpoints.training_manager(folder / "checkpoints") as manager:
    if manager.latest_step() is not None:
      state = _restore(manager, state)
    first = int(state.step)
    curves = Curves.read(folder, first)
    upcoming = parallel.ahead(itertools.islice(pairs(state), config.steps - first))
    step = parallel.pmap(make_measured_step(config, augment_key), donate_argnums=(0,))
    state = parallel.replicate(state)
    if first < config.steps:
      events.restart(first + 1)
    rates, watch, logged = _learning_rates(config), tracking.Stopwatch(), first
    with progress.bar("train", config.steps, first) as bar:
      for t in range(first + 1, config.steps + 1):
        with watch.waiting():
          batch = next(upcoming)
        state, loss, norm = step(state, batch)
        curves.on_devices.append((loss, norm, batch.get("pairs")))
        bar.update()
        checkpoint = t % config.checkpoint_every == 0 or t == config.steps
        log = t % config.log_every == 0 or checkpoint
        # Wait for the devices only where losses are fetched or processes agree on what to do next.
        if not (log or preemption.leaving_alone()):
          continue
        try:
          curves.fetch(t, config, manager)
        except (FloatingPointError, TooFewPairs):
          _leave_curve(events, curves)
          raise
        if log:
          mean = curves.log(t)
          bar.set_postfix(loss=f"{mean:.4f}", refresh=False)
          point = {"loss": mean, "learning_rate": rates[t - 1], "gradient_norm": curves.last[1]}
          point |= watch.rates(steps=t - logged, pictures=(t - logged) * config.batch_size)
          events.point(t, {f"training/{name}": value for name, value in point.items()})
          events.flush()
          logged = t
        if checkpoint:
          saved = _fetch(state)
          scores = validate({name: saved[name] for name in ("params", "batch_stats")})
          curves.append("Validation", {"step": t, **scores})
          events.point(t, {f"validation/{name}": score for name, score in scores.items()})
          if draw is not None and parallel.is_primary():
            events.pictures(t, "validation/masks", draw(saved))
          events.flush(publish=True)
          curves.write(folder, t)
          checkpoints.save_state(manager, t, saved, scores)
          watch.restart()
        elif preemption.anyone_leaving():
          events.flush(publish=True)
          curves.write(folder, t)
          checkpoints.save_state(manager, t, _fetch(state))
          manager.wait_until_finished()
          preemption.leave(f"the training is saved at step {t} of {config.steps}")
    manager.wait_until_finished()


def _learning_rates(config: ml_collections.ConfigDict) -> list[float]:
  """Returns the learning rates of all steps, fetched at once."""
  steps = jax.device_put(np.arange(config.steps, dtype=np.int32))
  return jax.device_get(jax.jit(jax.vmap(schedule(config)))(steps)).tolist()


def _leave_curve(events: tracking.EventWriter, curves: Curves) -> None:
  """Writes the individual losses since the last point, then NaN for the failed step."""
  step, _ = curves.last
  for at, loss in enumerate([*curves.losses, float("nan")], step - len(curves.losses) + 1):
    events.point(at, {"training/loss": loss})
  events.flush(publish=True)


def _saved(state: TrainState) -> dict[str, Any]:
  """Returns the parts of a state that a checkpoint holds, by their names on disk."""
  return {
    "params": state.params,
    "batch_stats": state.batch_stats,
    "optimizer_state": state.opt_state,
    "step": state.step,
    "candidates": state.candidates,
  }


def _fetch(state: TrainState) -> dict[str, Any]:
  """Returns the parts of a replicated state that a checkpoint holds, as NumPy arrays."""
  return _saved(parallel.unreplicate(state))


def _restore(manager: ocp.CheckpointManager, fresh: TrainState) -> TrainState:
  """Returns the state of the last checkpoint."""
  saved = checkpoints.restore_state(manager, manager.latest_step(), _saved(fresh))
  return fresh.replace(opt_state=saved.pop("optimizer_state"), **saved)
