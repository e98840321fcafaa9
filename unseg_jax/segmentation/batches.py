"""Training batches from data sets on disk, by grain: number `t` is a function of seed and `t`."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain.python as grain
import ml_collections
import numpy as np
from PIL import Image

from unseg_jax.runtime import parallel

# A split for random access, as `shards.read` opens it.
Source = Sequence[Mapping[str, Any]]


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


def read_ahead(dataset: grain.MapDataset, first: int) -> Iterator[dict[str, np.ndarray]]:
  """Yields the batches from number `first` on; threads read those that come next."""
  # Half of the processors: where JAX computes on them as well, it needs the other half.
  threads = max(1, (os.cpu_count() or 1) // 2)
  options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(8, threads))
  return iter(dataset[first:].to_iter_dataset(options))
