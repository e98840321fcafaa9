"""Stage 3: a U-Net learns to segment from the synthetic pairs."""

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

from unseg_jax import augmentation, checkpoints, evaluation, parallel, progress, workdir
from unseg_jax.segmenter import Segmenter
from unseg_jax.unet import Unet


@flax.struct.dataclass
class TrainState:
  """The U-Net's weights and running statistics, the optimizer's state, and the steps taken."""

  params: Any
  batch_stats: Any
  optimizer_state: optax.OptState
  step: jax.Array


def schedule(config: ml_collections.ConfigDict) -> optax.Schedule:
  """The learning rate: `staircase` (the paper's: times `decay` every `decay_every`) or `cosine`."""
  if config.schedule == "staircase":
    return optax.exponential_decay(
      config.learning_rate, config.decay_every, config.decay, staircase=True
    )
  if config.schedule == "cosine":
    return optax.cosine_decay_schedule(config.learning_rate, config.steps)
  raise ValueError(f"config.train.schedule={config.schedule!r}: expected staircase or cosine")


def initial_state(config: ml_collections.ConfigDict, key: jax.Array) -> TrainState:
  """Fresh weights."""
  images = jnp.zeros((1, config.image_size, config.image_size, 3))
  variables = jax.jit(Unet(tuple(config.widths)).init)(key, images)
  optimizer_state = optax.adam(schedule(config)).init(variables["params"])
  return TrainState(
    variables["params"], variables["batch_stats"], optimizer_state, jnp.zeros((), jnp.int32)
  )


def make_step(config: ml_collections.ConfigDict, key: jax.Array) -> Callable[..., Any]:
  """Returns the training step, to run under `pmap` (averages over `parallel.AXIS`).

  It maps a state and a batch (`image` `[n, S, S, 3]` uint8, `mask` `[n, S, S, 1]` uint8, `position`
  `[n]` in the whole batch) to the next state and the mean cross-entropy.
  """
  network, optimizer = Unet(tuple(config.widths)), optax.adam(schedule(config))

  def prepare(step, batch):
    images = batch["image"].astype(jnp.float32) / 127.5 - 1.0
    found = batch["mask"][..., 0] > 127
    if config.augment:
      step_key = jax.random.fold_in(key, step)
      keys = jax.vmap(lambda i: jax.random.fold_in(step_key, i))(batch["position"])
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
      losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
      return losses.mean(), updated["batch_stats"]

    (loss, batch_stats), gradient = jax.value_and_grad(loss_function, has_aux=True)(state.params)
    gradient, loss = jax.lax.pmean((gradient, loss), parallel.AXIS)
    updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(params, batch_stats, optimizer_state, state.step + 1), loss

  return step


def batches(
  source: Sequence[Mapping[str, Any]], config: ml_collections.ConfigDict, seed: int
) -> grain.MapDataset:
  """The training batches: number `t` is a pure function of the seed and `t`."""
  dataset = grain.MapDataset.source(source).seed(seed).shuffle().repeat()
  return dataset.map(lambda record: _fit(record, config.image_size)).batch(config.batch_size)


def _fit(record: Mapping[str, Any], size: int) -> dict[str, np.ndarray]:
  """Keeps image and mask, resized to the training's size where the generator's differs."""
  image, mask = record["image"], record["mask"]
  if image.shape[0] != size:
    image = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    mask = Image.fromarray(mask[..., 0]).resize((size, size), Image.Resampling.NEAREST)
    mask = np.asarray(mask)[..., None]
  return {"image": image, "mask": mask}


def train(
  config: ml_collections.ConfigDict,
  sources: Mapping[str, Sequence[Mapping[str, Any]]],
  key: jax.Array,
  folder: Path,
) -> None:
  """Trains the segmenter; continues from the folder's last checkpoint if there is one.

  Args:
    config: `config.train` of an experiment.
    sources: the data set's splits `train` and `validation`, for random access.
    key: the typed PRNG key of the experiment's training.
    folder: receives `checkpoints/` (orbax; the best by validation IoU and the last) and
      `history.json`.

  Raises:
    FloatingPointError: the loss became NaN or infinite; names the step and the last checkpoint.
  """
  parallel.check_divisible("config.train.batch_size", config.batch_size)
  init_key, augment_key, order_key = jax.random.split(key, 3)
  seed = int(jax.random.randint(order_key, (), 0, np.iinfo(np.int32).max))
  dataset = batches(sources["train"], config, seed)
  state = initial_state(config, init_key)
  with checkpoints.training_manager(folder / "checkpoints") as manager:
    if manager.latest_step() is not None:
      state = checkpoints.restore_state(manager, manager.latest_step(), state)
    history = _history_until(folder / "history.json", int(state.step))
    step = parallel.pmap(make_step(config, augment_key), donate_argnums=(0,))
    position = parallel.shard(np.arange(config.batch_size))
    done = int(state.step)
    state, waiting = parallel.replicate(state), []
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=8)
    upcoming = iter(dataset[done:].to_iter_dataset(options)) if done < config.steps else iter(())
    with progress.bar("train", config.steps, done) as bar:
      for t in range(done, config.steps):
        batch = parallel.shard(next(upcoming)) | {"position": position}
        state, loss = step(state, batch)
        waiting.append(loss)
        bar.update()
        save = (t + 1) % config.checkpoint_every == 0 or t + 1 == config.steps
        if (t + 1) % config.log_every == 0 or save:
          _record(history, waiting, t + 1, manager)
          waiting = []
          bar.set_postfix(loss=f"{history['Training']['loss'][-1]:.4f}", refresh=False)
        if save:
          plain = parallel.unreplicate(state)
          scores = validate(plain, config, sources["validation"])
          _append(history, "Validation", {"step": t + 1, **scores})
          workdir.write_json(folder / "history.json", history)
          manager.save(
            t + 1, args=ocp.args.Composite(state=ocp.args.PyTreeSave(plain)), metrics=scores
          )
    manager.wait_until_finished()


def validate(
  state: TrainState, config: ml_collections.ConfigDict, source: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
  """Scores the current weights on the validation split."""
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  segmenter = Segmenter.create(variables, config.widths, config.image_size)
  return evaluation.evaluate(segmenter, evaluation.synthetic_pairs(source))


def _record(history, losses: list[jax.Array], step: int, manager: ocp.CheckpointManager) -> None:
  """Appends the mean of the losses since the last record; stops the run at one not finite."""
  values = np.array([float(parallel.unreplicate(loss)) for loss in losses])
  if not np.isfinite(values).all():
    first = step - len(values) + int(np.argmin(np.isfinite(values)))
    last = manager.latest_step()
    kept = (
      "there is no checkpoint yet"
      if last is None
      else (f"the last good checkpoint is of step {last}, in {manager.directory / str(last)}")
    )
    raise FloatingPointError(
      f"the training loss is not finite at step {first}; {kept}. Lower config.train.learning_rate."
    )
  _append(history, "Training", {"step": step, "loss": float(values.mean())})


def _append(history: dict[str, dict[str, list]], curve: str, point: Mapping[str, float]) -> None:
  for name, value in point.items():
    history.setdefault(curve, {}).setdefault(name, []).append(value)


def _history_until(path: Path, step: int) -> dict[str, dict[str, list]]:
  """Reads the history without what comes after the checkpoint that training continues from."""
  if not path.exists():
    return {}
  return {
    curve: {
      name: [value for value, at in zip(values, columns["step"], strict=True) if at <= step]
      for name, values in columns.items()
    }
    for curve, columns in workdir.read_json(path).items()
  }
