"""Writing and reading of pairs, as in the stages `generate` and `train`."""

import concurrent.futures
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from PIL import Image

from common import experiments
from host_parts import cost
from host_parts.cost import Cost
from unseg_jax.runtime import parallel, tracking, workers
from unseg_jax.segmentation import batches, step
from unseg_jax.synthesis import generate, records, shards
from unseg_jax.synthesis.acceptance import Live

CHUNK = 64
BATCH = 128


def pictures(size: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns a chunk of noisy images `[CHUNK, S, S, 3]` uint8, and round masks."""
  generator = np.random.default_rng(0)
  coarse = generator.integers(0, 256, (CHUNK, 8, 8, 3), dtype=np.uint8)
  smooth = [Image.fromarray(x).resize((size, size), Image.Resampling.BICUBIC) for x in coarse]
  noisy = np.stack(smooth) + generator.normal(0, 6, (CHUNK, size, size, 3))
  rows, columns = np.mgrid[:size, :size] / size
  centres = generator.uniform(0.3, 0.7, (2, CHUNK, 1, 1))
  masks = (rows - centres[0]) ** 2 + (columns - centres[1]) ** 2 < 0.07
  return np.clip(noisy, 0, 255).astype(np.uint8), masks


def write(size: int, worker_count: int, pairs: int, folder: Path) -> Cost:
  """Returns the cost of a pair in the stage `generate`, without making candidates."""
  images, masks = pictures(size)
  everything = np.ones(CHUNK, bool)
  chunk = {"image": images, "mask": masks, "label": np.zeros(CHUNK, np.int32)}
  chunk = jax.tree.map(jax.numpy.asarray, chunk | {"verdicts": {"all": everything}})
  made = jax.tree.map(lambda x: x[None], chunk)
  chunks_of_a_shard = max(1, pairs // 4 // CHUNK)
  with workers.executor(worker_count) as encoders:
    _warm_up(encoders, worker_count)
    waiting = generate.WAITING_CHUNKS + worker_count
    split = split_of(pairs, CHUNK, chunks_of_a_shard, folder, made, encoders, waiting)
    with mock.patch.object(parallel, "local_device_count", lambda: 1):
      return cost.measure(pairs, lambda: generate._generate_split(split))


def split_of(
  pairs: int,
  chunk: int,
  chunks_of_a_shard: int,
  folder: Path,
  made: dict[str, Any],
  encoders: concurrent.futures.Executor,
  waiting: int,
) -> generate._Split:
  """Returns a split in which every chunk of candidates is `made`, on one device."""
  config = experiments.load("bigbigan.py").generate
  config.num_images.train = pairs
  config.update({"chunk": chunk, "shard_candidates": chunk * chunks_of_a_shard})
  live = Live(tracking.SILENT)
  return generate._Split(
    "train", config, folder, lambda _: made, None, records.MASK_BITS, encoders, waiting, live
  )


def _warm_up(pool, worker_count: int) -> None:
  """Waits until every worker process has imported its modules."""
  image, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), bool)
  tasks = [pool.submit(records.encode, image, mask, 0, 0) for _ in range(64 * worker_count)]
  for task in tasks:
    task.result()


def read(size: int, worker_count: int, pairs: int, folder: Path) -> Cost:
  """Returns the cost of a pair in the stage `train`, without training steps."""
  images, masks = pictures(size)
  path = shards.shard_path(folder, "train", 0)
  if not path.exists():
    encoded = records.encode_all(images, masks, np.zeros(CHUNK, int), np.arange(CHUNK))
    shards.write_shard(path, encoded * (-(-pairs // CHUNK)), {})
  split = records.Split((str(path),), (-(-pairs // CHUNK) * CHUNK,))
  config = experiments.load("bigbigan.py").train
  first = 4 + 2 * worker_count  # Batches until every worker has imported its modules.
  counted = -(-pairs // BATCH)
  config.update({"batch_size": BATCH, "image_size": size, "steps": 2 * (first + counted)})
  config.update({"features": (2, 2), "dtype": "float32"})
  state = step.initial_state(config, jax.random.key(0))
  upcoming = batches.from_disk([split], [1.0], config, jax.random.key(1), state, worker_count)
  _take(first, upcoming)
  found = cost.measure(counted * BATCH, lambda: _take(counted, upcoming))
  upcoming.close()
  return found


def _take(count: int, upcoming: Iterator[Any]) -> None:
  for _ in range(count):
    next(upcoming)
