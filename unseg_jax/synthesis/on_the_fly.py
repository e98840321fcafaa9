"""Generates training pairs during training and writes none to disk.

A pool on the devices holds accepted pairs in candidate order. Rounds of candidates fill the pool
until it holds a batch; the batch is then taken from its front. Batch `t` holds the accepted
candidates from number `t * batch_size` on, for any number of devices. These are the pairs that
the data set on disk would hold.
"""

from collections.abc import Callable, Iterator
from typing import Any, no_type_check

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from unseg_jax.array_types import AnyArray, Array, Float, Key
from unseg_jax.generators import Generator, with_dtype
from unseg_jax.runtime import parallel
from unseg_jax.synthesis import candidates


# Field types are not checked at run time: JAX also puts shapes and placeholders into pytrees.
@no_type_check
class Pool(flax.struct.PyTreeNode):
  """A pool of accepted pairs, the same on every device.

  Attributes:
    image: `[capacity, S, S, 3]` uint8.
    mask: `[capacity, S, S, 1]` uint8; 255 is foreground.
    candidate: `[capacity]` int32, the candidate index of each pair.
    count: number of pairs; they occupy the front of the arrays.
    first: the first candidate that is not used up.
    upcoming: the first candidate of the next round.
  """

  image: AnyArray
  mask: AnyArray
  candidate: AnyArray
  count: AnyArray
  first: AnyArray
  upcoming: AnyArray


def empty_pool(config: ml_collections.ConfigDict, first: int) -> Pool:
  """Returns an empty pool, on the host.

  Args:
    config: an experiment's config; its `generate` and `train` parts are used.
    first: the first candidate to use; rounds start at chunk boundaries.
  """
  chunk, size = config.generate.chunk, config.train.image_size
  # The largest content: a batch less one pair, plus a round in which all candidates are accepted.
  capacity = config.train.batch_size + chunk * parallel.device_count()
  return Pool(
    image=np.zeros((capacity, size, size, 3), np.uint8),
    mask=np.zeros((capacity, size, size, 1), np.uint8),
    candidate=np.zeros((capacity,), np.int32),
    count=np.zeros((), np.int32),
    first=np.array(first, np.int32),
    upcoming=np.array(first // chunk * chunk, np.int32),
  )


def batches(
  generator: Generator,
  directions: Float[np.ndarray, " k *latent_shape"],
  config: ml_collections.ConfigDict,
  key: Key[Array, ""],
  state: Any,
) -> Iterator[dict[str, Any]]:
  """Yields the next training batches, on the devices.

  Args:
    generator: the pretrained generator.
    directions: `light`, or `light` and `dark`.
    config: an experiment's config; its `generate` and `train` parts are used.
    key: the PRNG key of the candidate stream.
    state: the training state to continue from; its `candidates` field is used.
  """
  generator = with_dtype(generator, config.generate.dtype)
  draw = parallel.pmap(make_batch(generator, config, key), donate_argnums=(0,))
  pool = empty_pool(config, int(state.candidates))
  pool, variables, directions = parallel.replicate((pool, generator.variables, directions))
  while True:
    pool, batch = draw(pool, variables, directions)
    yield batch


def make_batch(
  generator: Generator, config: ml_collections.ConfigDict, key: Key[Array, ""]
) -> Callable[..., tuple[Pool, dict[str, jax.Array]]]:
  """Returns the function that makes a batch, to run under `pmap`.

  Args:
    generator: the pretrained generator.
    config: an experiment's config; its `generate` and `train` parts are used.
    key: the PRNG key of the candidate stream.

  Returns:
    A function of (pool, variables, directions) that returns the next pool and this device's part of
    the batch. The batch holds `image`, `mask` and `position` as the training step expects them. Its
    `candidates` is the number of candidates used up so far. Its `pairs` is the number of accepted
    pairs, which is below the batch size if the filters reject almost all candidates.
  """
  settings, batch_size = config.generate, config.train.batch_size
  compute = candidates.make_candidates(generator, settings)
  per_round = settings.chunk * parallel.device_count()
  # More rounds mean that the acceptance rate is below the minimum, and the run must stop.
  most_rounds = int(np.ceil(batch_size / (per_round * settings.minimum_acceptance))) + 1

  def fill(pool, variables, directions):
    offset = settings.chunk * jax.lax.axis_index(parallel.AXIS)
    numbers = pool.upcoming + offset + jnp.arange(settings.chunk, dtype=jnp.int32)
    made = compute(variables, directions, key, numbers)
    accepted = made["verdicts"]["all"] & (numbers >= pool.first)
    image, mask = _fit(made["image"], made["mask"], config.train.image_size)
    pairs = (image, mask, numbers, accepted)
    image, mask, numbers, accepted = jax.lax.all_gather(pairs, parallel.AXIS, tiled=True)
    position = pool.count + jnp.cumsum(accepted, dtype=jnp.int32) - 1
    position = jnp.where(accepted, position, len(pool.candidate))  # Out of bounds, so dropped.
    return pool.replace(
      image=pool.image.at[position].set(image, mode="drop"),
      mask=pool.mask.at[position].set(mask, mode="drop"),
      candidate=pool.candidate.at[position].set(numbers, mode="drop"),
      count=pool.count + jnp.sum(accepted, dtype=jnp.int32),
      upcoming=pool.upcoming + per_round,
    )

  def batch(pool, variables, directions):
    pool, _ = jax.lax.while_loop(
      lambda s: (s[0].count < batch_size) & (s[1] < most_rounds),
      lambda s: (fill(s[0], variables, directions), s[1] + 1),
      (pool, jnp.zeros((), jnp.int32)),
    )
    own = batch_size // parallel.device_count()
    position = own * jax.lax.axis_index(parallel.AXIS) + jnp.arange(own, dtype=jnp.int32)
    return _without_first(pool, batch_size), {
      "image": pool.image[position],
      "mask": pool.mask[position],
      "position": position,
      "candidates": pool.candidate[batch_size - 1] + 1,
      "pairs": jnp.minimum(pool.count, batch_size),
    }

  return batch


def _without_first(pool: Pool, count: int) -> Pool:
  def drop(array):
    return jnp.concatenate([array[count:], jnp.zeros_like(array[:count])])

  return pool.replace(
    image=drop(pool.image),
    mask=drop(pool.mask),
    candidate=drop(pool.candidate),
    count=pool.count - count,
  )


def _fit(images: jax.Array, masks: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
  """Returns images `[n, S, S, 3]` and masks `[n, S, S, 1]` as uint8 at the training size."""
  mask = jnp.where(masks[..., None], 255, 0).astype(jnp.uint8)
  if images.shape[1] != size:
    shape = (len(images), size, size)
    resized = jax.image.resize(images.astype(jnp.float32), (*shape, 3), "bilinear")
    images = jnp.clip(jnp.round(resized), 0, 255).astype(jnp.uint8)
    mask = jax.image.resize(mask, (*shape, 1), "nearest")
  return images, mask
