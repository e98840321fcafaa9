"""Stage 3: a U-Net learns to segment from the synthetic pairs."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from unseg_jax.generators import Generator, with_dtype
from unseg_jax.runtime import checkpoints, parallel, preemption, progress, workdir
from unseg_jax.segmentation.batches import Source, batches, read_ahead
from unseg_jax.segmentation.segmenter import Segmenter
from unseg_jax.segmentation.step import TrainState, initial_state, make_step
from unseg_jax.synthesis import on_the_fly

# Takes a step; returns the next state, the loss and, where pairs are made on the fly, how many
# there were for its batch.
Advance = Callable[[TrainState], tuple[TrainState, jax.Array, jax.Array | None]]
Begin = Callable[[TrainState, Callable[..., Any]], Advance]


class TooFewPairs(Exception):
  """Pairs made on the fly run out, for the filters reject almost everything."""


def from_disk(config: ml_collections.ConfigDict, source: Source, key: jax.Array) -> Begin:
  """Trains on one data set; see `from_mixture`."""
  return from_mixture(config, [source], [1.0], key)


def from_mixture(
  config: ml_collections.ConfigDict,
  sources: Sequence[Source],
  weights: Sequence[float],
  key: jax.Array,
) -> Begin:
  """Trains on data sets; every process reads its own part of each batch.

  Args:
    config: `config.train` of an experiment.
    sources: the splits; none is empty, and the images' sizes may differ.
    weights: above 0; of any stretch of pairs each source gives its weight's share.
    key: the training's; the batches' order comes from it.

  Returns:
    What `train` needs: a function of the state to start from and the update.
  """

  def begin(state, update):
    order_key = jax.random.split(key, 3)[2]
    seed = int(jax.random.randint(order_key, (), 0, np.iinfo(np.int32).max))
    upcoming = read_ahead(batches(sources, weights, config, seed), int(state.step))
    step = parallel.pmap(update, donate_argnums=(0,))
    position = parallel.shard(parallel.own_part(np.arange(config.batch_size)))

    def advance(state):
      state, loss = step(state, parallel.shard(next(upcoming)) | {"position": position})
      return state, loss, None

    return advance

  return begin


def from_generator(
  config: ml_collections.ConfigDict,
  generator: Generator,
  found: np.ndarray,
  key: jax.Array,
) -> Begin:
  """Trains on pairs that are made on the fly.

  Args:
    config: an experiment's; its `generate` and `train` count.
    generator: the pretrained generator.
    found: directions `[K, *latent_shape]`.
    key: the candidates' stream.

  Returns:
    What `train` needs: a function of the state to start from and the update.
  """
  generator = with_dtype(generator, config.generate.dtype)

  def begin(state, update):
    step = on_the_fly.make_step(update, generator, config, key)
    step = parallel.pmap(step, donate_argnums=(0, 1))
    pool = on_the_fly.empty_pool(config, int(state.candidates))
    pool, variables, directions = parallel.replicate((pool, generator.variables, found))

    def advance(state):
      nonlocal pool
      state, pool, loss, pairs = step(state, pool, variables, directions)
      return state, loss, pairs

    return advance

  return begin


def train(
  config: ml_collections.ConfigDict,
  begin: Begin,
  validate: Callable[[Segmenter], dict[str, float]],
  key: jax.Array,
  folder: Path,
  start: Mapping[str, Any] | None = None,
) -> None:
  """Trains the segmenter; continues from the folder's last checkpoint if there is one.

  Args:
    config: `config.train` of an experiment.
    begin: where the pairs come from: `from_disk`, `from_mixture` or `from_generator`.
    validate: scores a segmenter on pairs of its own; the `iou` among the scores picks the best
      checkpoint.
    key: the typed PRNG key of the experiment's training.
    folder: receives `checkpoints/` (orbax; the best by validation IoU and the last) and
      `history.json`.
    start: the U-Net's `params` and `batch_stats` to start from; None: fresh ones.

  Raises:
    FloatingPointError: the loss became NaN or infinite; names the step and the last checkpoint.
    TooFewPairs: pairs made on the fly run out.
    preemption.Preempted: the run was asked to leave; a checkpoint of this step is saved.
  """
  parallel.check_divisible("config.train.batch_size", config.batch_size)
  init_key, augment_key, _ = jax.random.split(key, 3)
  state = initial_state(config, init_key, start)
  with checkpoints.training_manager(folder / "checkpoints") as manager:
    if manager.latest_step() is not None:
      state = checkpoints.restore_state(manager, manager.latest_step(), state)
    done = int(state.step)
    curves = Curves.read(folder, done)
    advance = begin(state, make_step(config, augment_key))
    state = parallel.replicate(state)
    with progress.bar("train", config.steps, done) as bar:
      for t in range(done + 1, config.steps + 1):
        state, *made = advance(state)
        curves.waiting.append(tuple(made))
        bar.update()
        checkpoint = t % config.checkpoint_every == 0 or t == config.steps
        log = t % config.log_every == 0 or checkpoint
        # The device is not waited for at every step, but where processes agree on what to do next.
        if not (log or preemption.leaving_alone()):
          continue
        curves.fetch(t, config, manager)
        if log:
          bar.set_postfix(loss=f"{curves.log(t):.4f}", refresh=False)
        if checkpoint:
          plain = jax.device_get(parallel.unreplicate(state))
          scores = validate(_segmenter(plain, config))
          curves.append("Validation", {"step": t, **scores})
          curves.write(folder, t)
          checkpoints.save_state(manager, t, plain, scores)
        elif preemption.anyone_leaving():
          curves.write(folder, t)
          checkpoints.save_state(manager, t, jax.device_get(parallel.unreplicate(state)))
          manager.wait_until_finished()
          preemption.leave(f"the training is saved at step {t} of {config.steps}")
    manager.wait_until_finished()


def _segmenter(state: TrainState, config: ml_collections.ConfigDict) -> Segmenter:
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  return Segmenter.create(variables, config.widths, config.image_size)


@dataclasses.dataclass
class Curves:
  """The training's history, and the losses that wait to be logged as their mean.

  Attributes:
    columns: `{curve: {"step": [...], name: [...]}}`, as `history.json` holds it.
    waiting: losses since the last point, or what `Advance` returned of them, still on the device.
  """

  columns: dict[str, dict[str, list]]
  waiting: list[Any]

  @classmethod
  def read(cls, folder: Path, step: int) -> "Curves":
    """Reads what was logged up to the step that training continues from."""
    path, pending = folder / "history.json", folder / "pending.json"
    curves = cls({}, [])
    if path.exists():
      for curve, columns in workdir.read_json(path).items():
        kept = [at <= step for at in columns["step"]]
        curves.columns[curve] = {
          name: list(itertools.compress(values, kept)) for name, values in columns.items()
        }
    if pending.exists() and (found := workdir.read_json(pending))["step"] == step:
      curves.waiting = found["losses"]
    return curves

  def write(self, folder: Path, step: int) -> None:
    """Writes the history, and what waits at this step if anything does."""
    if parallel.is_primary():
      workdir.write_json(folder / "history.json", self.columns)
      if self.waiting:
        workdir.write_json(folder / "pending.json", {"step": step, "losses": self.waiting})

  def append(self, curve: str, point: Mapping[str, float]) -> None:
    """Adds a point to a curve, in the columns with which it began.

    A run that an earlier version began has no columns for the scores that are newer.
    """
    for name, values in self.columns.setdefault(curve, {name: [] for name in point}).items():
      values.append(point[name])

  def fetch(self, step: int, config: ml_collections.ConfigDict, manager) -> None:
    """Gets the waiting losses from the device; stops the run at one that is not finite."""
    for i, made in enumerate(self.waiting):
      if isinstance(made, float):
        continue
      loss, pairs = jax.device_get(parallel.unreplicate(made))
      at = step - len(self.waiting) + i
      if pairs is not None and pairs < config.batch_size:
        raise TooFewPairs(
          f"the filters reject almost everything: step {at} found {pairs} of the "
          f"{config.batch_size} pairs of its batch; {_last(manager)}. See "
          "config.generate.minimum_acceptance, and run the stage generate alone for the shares "
          "that each filter accepts."
        )
      if not np.isfinite(loss):
        raise FloatingPointError(
          f"the training loss is not finite at step {at}; {_last(manager)}. Lower "
          "config.train.learning_rate."
        )
      self.waiting[i] = float(loss)

  def log(self, step: int) -> float:
    """Adds the mean of the waiting losses as a point, and returns it."""
    mean = float(np.mean(self.waiting))
    self.append("Training", {"step": step, "loss": mean})
    self.waiting = []
    return mean


def _last(manager: ocp.CheckpointManager) -> str:
  step = manager.latest_step()
  if step is None:
    return "there is no checkpoint yet"
  return f"the last good checkpoint is of step {step}, in {manager.directory / str(step)}"
