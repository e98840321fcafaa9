"""Training batches from data sets on disk, by grain: number `t` is a function of seed and `t`."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain.python as grain
import jax
import ml_collections
import numpy as np
from PIL import Image

from unseg_jax.array_types import Array, Int, Key
from unseg_jax.runtime import parallel
from unseg_jax.segmentation.step import Batch, TrainState

# A split for random access, as `shards.read` opens it.
Records = Sequence[Mapping[str, Any]]


def from_disk(
  sources: Sequence[Records],
  weights: Sequence[float],
  config: ml_collections.ConfigDict,
  key: Key[Array, ""],
  state: TrainState,
) -> Iterator[Batch]:
  """Yields the batches that follow a state of the training, on the host, split by `parallel.shard`.

  Args:
    sources: the splits; none is empty, and the images' sizes may differ.
    weights: above 0; of any stretch of pairs each source gives its weight's share.
    config: `config.train` of an experiment.
    key: the training's; decides the order of the pairs.
    state: the training continues from it.
  """
  seed = int(jax.device_get(_draw_seed(key)))
  position = parallel.shard(parallel.own_part(np.arange(config.batch_size)))
  # Half of the processors: where JAX computes on them as well, it needs the other half.
  threads = max(1, (os.cpu_count() or 1) // 2)
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(8, threads))
  dataset = order(sources, weights, config, seed)[int(state.step) :]
  for batch in dataset.to_iter_dataset(options):
    yield parallel.shard(batch) | {"position": position}


@jax.jit
def _draw_seed(key: Key[Array, ""]) -> Int[Array, ""]:
  return jax.random.randint(jax.random.split(key, 3)[2], (), 0, np.iinfo(np.int32).max)


def order(
  sources: Sequence[Records],
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
  """Takes image and mask of a record, resized to the training's size where theirs differs."""
  image, mask = record["image"], record["mask"]
  if image.shape[0] != size:
    image = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    mask = Image.fromarray(mask[..., 0]).resize((size, size), Image.Resampling.NEAREST)
    mask = np.asarray(mask)[..., None]
  return {"image": image, "mask": mask}
