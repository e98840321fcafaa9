"""Stage 3: a U-Net learns to segment from the synthetic pairs."""

import dataclasses
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.struct
import grain.python as grain
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import orbax.checkpoint as ocp
from PIL import Image

from unseg_jax.generators import Generator, check_dtype, with_dtype
from unseg_jax.runtime import checkpoints, parallel, preemption, progress, workdir
from unseg_jax.segmentation import augmentation, backgrounds, losses
from unseg_jax.segmentation.segmenter import Segmenter
from unseg_jax.segmentation.unet import Unet
from unseg_jax.synthesis import on_the_fly


@flax.struct.dataclass
class TrainState:
  """What training changes, and all that it needs to go on.

  Attributes:
    params: the U-Net's weights.
    batch_stats: its running statistics.
    optimizer_state: Adam's.
    step: the number of steps taken.
    candidates: how many candidates were used up, where pairs are made on the fly; else 0.
  """

  params: Any
  batch_stats: Any
  optimizer_state: optax.OptState
  step: jax.Array
  candidates: jax.Array


# Takes a step; returns the next state, the loss and, where pairs are made on the fly, how many
# there were for its batch.
Advance = Callable[[TrainState], tuple[TrainState, jax.Array, jax.Array | None]]
Begin = Callable[[TrainState, Callable[..., Any]], Advance]
Source = Sequence[Mapping[str, Any]]  # A split for random access, as `shards.read` opens it.


class TooFewPairs(Exception):
  """Pairs made on the fly run out, for the filters reject almost everything."""


def schedule(config: ml_collections.ConfigDict) -> optax.Schedule:
  """The learning rate: `staircase` (the paper's: times `decay` every `decay_every`) or `cosine`."""
  if config.schedule == "staircase":
    return optax.exponential_decay(
      config.learning_rate, config.decay_every, config.decay, staircase=True
    )
  if config.schedule == "cosine":
    return optax.cosine_decay_schedule(config.learning_rate, config.steps)
  raise ValueError(f"config.train.schedule={config.schedule!r}: expected staircase or cosine")


def initial_state(
  config: ml_collections.ConfigDict, key: jax.Array, start: Mapping[str, Any] | None = None
) -> TrainState:
  """Fresh weights, or those of a U-Net to start from (`params` and `batch_stats`)."""
  variables = start
  if variables is None:
    images = jnp.zeros((1, config.image_size, config.image_size, 3))
    variables = jax.jit(Unet(tuple(config.widths)).init)(key, images)
  optimizer_state = optax.adam(schedule(config)).init(variables["params"])
  zero = np.zeros((), np.int32)
  return TrainState(variables["params"], variables["batch_stats"], optimizer_state, zero, zero)


def make_step(config: ml_collections.ConfigDict, key: jax.Array) -> Callable[..., Any]:
  """Returns the training step, to run under `pmap` (averages over `parallel.AXIS`).

  It maps a state and a batch (`image` `[n, S, S, 3]` uint8, `mask` `[n, S, S, 1]` uint8, `position`
  `[n]` in the whole batch) to the next state and the mean loss.
  """
  network = Unet(tuple(config.widths), jnp.dtype(config.dtype))
  optimizer = optax.adam(schedule(config))

  def prepare(step, batch):
    images = batch["image"].astype(jnp.float32) / 127.5 - 1.0
    found = batch["mask"][..., 0] > 127
    step_key, position = jax.random.fold_in(key, step), batch["position"]
    if config.backgrounds.share:
      images = backgrounds.replace_all(step_key, images, found, position, config)
    if config.augment:
      keys = jax.vmap(lambda i: jax.random.fold_in(step_key, i))(position)
      images, found = jax.vmap(augmentation.augment)(keys, images, found)
    return images, found.astype(jnp.int32)

  def step(state, batch):
    images, targets = prepare(state.step, batch)

    def loss_function(params):
      logits, updated = network.apply(
        {"params": params, "batch_stats": state.batch_stats},
        images,
        train=True,
        mutable=["batch_stats"],
      )
      return losses.mean_loss(logits, targets, config.overlap), updated["batch_stats"]

    (loss, batch_stats), gradient = jax.value_and_grad(loss_function, has_aux=True)(state.params)
    gradient, loss = jax.lax.pmean((gradient, loss), parallel.AXIS)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
    params = optax.apply_updates(state.params, updates)
    state = state.replace(
      params=params, batch_stats=batch_stats, optimizer_state=optimizer_state, step=state.step + 1
    )
    return state, loss

  return step


def check_config(config: ml_collections.ConfigDict) -> None:
  """Raises a ValueError for settings of `config.train` that make no sense."""
  schedule(config)
  if config.overlap < 0:
    raise ValueError(f"config.train.overlap={config.overlap}: expected a weight of at least 0")
  backgrounds.check_config(config.backgrounds)
  check_dtype("config.train.dtype", config.dtype)


def batches(
  sources: Sequence[Source],
  weights: Sequence[float],
  config: ml_collections.ConfigDict,
  seed: int,
) -> grain.MapDataset:
  """This process's part of the training batches: number `t` is a function of the seed and `t`."""
  repeated = [
    grain.MapDataset.source(source).seed(seed + number).shuffle().repeat()
    for number, source in enumerate(sources)
  ]
  dataset = grain.MapDataset.mix(repeated, list(weights))
  dataset = dataset.map(lambda record: _fit(record, config.image_size))
  count = parallel.process_count()
  return dataset.batch(config.batch_size // count)[parallel.process_index() :: count]


def _fit(record: Mapping[str, Any], size: int) -> dict[str, np.ndarray]:
  """Keeps image and mask, resized to the training's size where the generator's differs."""
  image, mask = record["image"], record["mask"]
  if image.shape[0] != size:
    image = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    mask = Image.fromarray(mask[..., 0]).resize((size, size), Image.Resampling.NEAREST)
    mask = np.asarray(mask)[..., None]
  return {"image": image, "mask": mask}


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
    # Half of the processors: where JAX computes on them as well, it needs the other half.
    threads = max(1, (os.cpu_count() or 1) // 2)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(8, threads))
    dataset = batches(sources, weights, config, seed)[int(state.step) :]
    upcoming = iter(dataset.to_iter_dataset(options))
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
