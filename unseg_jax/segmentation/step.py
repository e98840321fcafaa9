"""One training step: augmentation, the U-Net, the losses and Adam.

Nothing here reads or writes a file; `train.py` takes the steps, and keeps what they learn.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from unseg_jax.generators import check_dtype
from unseg_jax.runtime import parallel
from unseg_jax.segmentation import augmentation, backgrounds, losses
from unseg_jax.segmentation.unet import Unet


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
