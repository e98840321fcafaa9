"""One training step: augmentation, the U-Net, the losses and Adam.

This module does no file I/O. `train.py` runs the steps and saves the results.
"""

import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax.training import train_state

from unseg_jax.array_types import AnyArray, Array, Float, Int, Key
from unseg_jax.errors import InvalidValue
from unseg_jax.generators import check_dtype
from unseg_jax.runtime import parallel, settings
from unseg_jax.segmentation import augmentation, copy_paste, losses
from unseg_jax.segmentation.unet import Unet

Batch = Mapping[str, AnyArray]  # The batch format of `make_step`.


@typing.no_type_check  # JAX also constructs the class with leaves that are not arrays.
class TrainState(train_state.TrainState):
  """The state of training, which is sufficient to resume it.

  Attributes:
    batch_stats: the U-Net's running statistics.
    candidates: the number of candidates used up so far if pairs are made on the fly; otherwise 0.
  """

  batch_stats: Any
  candidates: AnyArray


def schedule(config: ml_collections.ConfigDict) -> optax.Schedule:
  """Returns the learning rate: `staircase` (the paper's, `decay` per `decay_every`) or `cosine`."""
  if config.schedule == "staircase":
    return optax.exponential_decay(
      config.learning_rate, config.decay_every, config.decay, staircase=True
    )
  if config.schedule == "cosine":
    return optax.cosine_decay_schedule(config.learning_rate, config.steps)
  raise InvalidValue(f"config.train.schedule={config.schedule!r}: expected staircase or cosine")


def initial_state(
  config: ml_collections.ConfigDict, key: Key[Array, ""], start: Mapping[str, Any] | None = None
) -> TrainState:
  """Returns the state before the first step.

  Args:
    config: `config.train` of an experiment.
    key: the PRNG key of the initial weights.
    start: the U-Net's `params` and `batch_stats` to start from; None initialises new ones.
  """
  features = tuple(config.features)
  if start is None:
    shape = (1, config.image_size, config.image_size, 3)
    variables = jax.jit(lambda key: Unet(features).init(key, jnp.zeros(shape, jnp.float32)))(key)
  else:
    variables = jax.device_put(dict(start))
  optimizer = optax.adam(schedule(config))
  zero = np.zeros((), np.int32)
  return TrainState(
    step=zero,  # type: ignore[arg-type]  # flax's annotation omits NumPy arrays.
    apply_fn=Unet(features, jnp.dtype(config.dtype)).apply,
    params=variables["params"],
    tx=optimizer,
    opt_state=jax.jit(optimizer.init)(variables["params"]),
    batch_stats=variables["batch_stats"],
    candidates=zero,
  )


def prepare(
  config: ml_collections.ConfigDict, key: Key[Array, ""], batch: Batch
) -> tuple[Float[Array, "n s s 3"], Int[Array, "n s s"]]:
  """Prepares a batch for the U-Net: copy-paste, augmentation and conversion to [-1, 1].

  Args:
    config: `config.train` of an experiment.
    key: the PRNG key of the training step.
    batch: a batch in the format of `make_step`.

  Returns:
    Images, float32 in [-1, 1], and targets, int32, 1 for foreground.
  """
  images = jnp.asarray(batch["image"], jnp.float32) / 127.5 - 1.0
  masks, position = jnp.asarray(batch["mask"])[..., 0] > 127, batch["position"]
  if config.copy_paste.share:
    images = copy_paste.replace_all(key, images, masks, position, config)
  if config.augment:
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(position)
    images, masks = jax.vmap(augmentation.augment)(keys, images, masks)
  return images, masks.astype(jnp.int32)


def make_step(
  config: ml_collections.ConfigDict, key: Key[Array, ""]
) -> Callable[[TrainState, Batch], tuple[TrainState, Array]]:
  """Returns the step of `make_measured_step` without the gradient norm."""
  step = make_measured_step(config, key)
  return lambda state, batch: step(state, batch)[:2]


def make_measured_step(
  config: ml_collections.ConfigDict, key: Key[Array, ""]
) -> Callable[[TrainState, Batch], tuple[TrainState, Array, Array]]:
  """Returns the training step, to run under `pmap` (it averages over `parallel.AXIS`).

  The step takes a state and a batch, and returns the next state, the mean loss and the gradient
  norm. A batch holds `image` `[n, s, s, 3]` uint8, `mask` `[n, s, s, 1]` uint8 (255 is foreground),
  and `position` `[n]`, the pairs' positions in the global batch. An optional entry `candidates`
  replaces that of the state.
  """

  def step(state: TrainState, batch: Batch) -> tuple[TrainState, Array, Array]:
    images, targets = prepare(config, jax.random.fold_in(key, state.step), batch)

    def loss_function(params: Mapping[str, Any]) -> tuple[Array, Mapping[str, Any]]:
      variables = {"params": params, "batch_stats": state.batch_stats}
      logits, updated = state.apply_fn(variables, images, train=True, mutable=["batch_stats"])
      return losses.mean_loss(logits, targets, config.iou_weight), updated["batch_stats"]

    (loss, batch_stats), gradient = jax.value_and_grad(loss_function, has_aux=True)(state.params)
    gradient, loss = jax.lax.pmean((gradient, loss), parallel.AXIS)
    candidates = batch.get("candidates", state.candidates)
    updated = state.apply_gradients(grads=gradient, batch_stats=batch_stats, candidates=candidates)
    return updated, loss, optax.tree.norm(gradient)

  return step


def check_config(config: ml_collections.ConfigDict) -> None:
  """Raises a ValueError for invalid settings in `config.train`."""
  schedule(config)
  settings.check_counts("train", config, "steps", "log_every", "checkpoint_every", "decay_every")
  settings.check(
    "train",
    config,
    ("iou_weight", "a weight of at least 0", config.iou_weight >= 0),
    ("features", "2 levels or more, each of at least 1 channel", _are_levels(config.features)),
    (
      "image_size",
      f"at least {2 ** (len(config.features) - 1)} pixels, because each level halves the size: "
      f"config.train.features={tuple(config.features)}; use fewer levels or larger images",
      config.image_size >= 2 ** (len(config.features) - 1),
    ),
  )
  copy_paste.check_config(config.copy_paste)
  check_dtype("config.train.dtype", config.dtype)


def _are_levels(features: Sequence[int]) -> bool:
  return len(features) >= 2 and min(features) >= 1
