"""Reads training batches from data sets on disk; batch `t` is a function of the seed and `t`.

grain determines the order of the pairs. Worker processes read and decode them.
"""

import functools
import os
from collections.abc import Iterator, Sequence

import grain.python as grain
import jax
import ml_collections
import numpy as np

from unseg_jax.array_types import Array, Int, Key
from unseg_jax.runtime import parallel, workers
from unseg_jax.runtime.prefetch import prefetch
from unseg_jax.segmentation import loading
from unseg_jax.segmentation.step import Batch, TrainState
from unseg_jax.synthesis import records
from unseg_jax.synthesis.records import Split


def from_disk(
  sources: Sequence[Split],
  weights: Sequence[float],
  config: ml_collections.ConfigDict,
  key: Key[Array, ""],
  state: TrainState,
  worker_count: int = 0,
) -> Iterator[Batch]:
  """Yields the batches that follow a training state, on the host, split by `parallel.shard`.

  Args:
    sources: non-empty splits; their image sizes may differ.
    weights: positive weights. Each source provides its share of any sequence of pairs.
    config: `config.train` of an experiment.
    key: the PRNG key of the training; it determines the order of the pairs.
    state: the training state to continue from.
    worker_count: number of processes that read pairs; 0 uses threads of this process. It does not
      change the batches.
  """
  seed = int(jax.device_get(_draw_seed(key)))
  position = parallel.shard(parallel.own_part(np.arange(config.batch_size)))
  own_size = config.batch_size // parallel.process_count()
  pieces = -(-own_size // records.pairs_per_task(config.image_size))
  numbers = order(sources, weights, config, seed)
  everything = joined(sources)
  first, end = int(state.step), config.steps
  places = (
    everything.locate_all(piece.tolist())
    for t in range(first, end)
    for piece in np.array_split(numbers[t], pieces)
  )
  # Half of the processors. If JAX also computes on them, it needs the other half.
  threads = max(1, (os.cpu_count() or 1) // 2)
  with workers.executor(worker_count, threads) as pool:
    load = functools.partial(loading.load, size=config.image_size)
    loaded = prefetch(pool, load, places, 2 * (worker_count or threads) + pieces)
    for _ in range(first, end):
      parts = [next(loaded) for _ in range(pieces)]
      batch = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
      yield parallel.shard(batch) | {"position": position}


def joined(sources: Sequence[Split]) -> Split:
  """Concatenates the records of several splits."""
  paths = [path for source in sources for path in source.paths]
  lengths = [length for source in sources for length in source.lengths]
  owners = {path: source for source in sources for path in source.paths}

  def prepare(paths: Sequence[str]) -> None:
    for source in sources:
      if own := [path for path in paths if owners[path] is source]:
        source.prepare(own)

  return Split(tuple(paths), tuple(lengths), prepare)


@jax.jit
def _draw_seed(key: Key[Array, ""]) -> Int[Array, ""]:
  return jax.random.randint(jax.random.split(key, 3)[2], (), 0, np.iinfo(np.int32).max, np.int32)


def order(
  sources: Sequence[Split],
  weights: Sequence[float],
  config: ml_collections.ConfigDict,
  seed: int,
) -> grain.MapDataset[Int[np.ndarray, " batch"]]:
  """Returns this process's part of the training batches, as indices into the joined sources.

  Batch `t` is a function of the seed and `t`. Each source is reshuffled in every epoch.
  """
  ends = np.cumsum([len(source) for source in sources])
  repeated = [
    grain.MapDataset.range(int(end) - len(source), int(end)).seed(seed + i).shuffle().repeat()
    for i, (source, end) in enumerate(zip(sources, ends, strict=True))
  ]
  dataset = grain.MapDataset.mix(repeated, list(weights))
  count = parallel.process_count()
  return dataset.batch(config.batch_size // count)[parallel.process_index() :: count]
