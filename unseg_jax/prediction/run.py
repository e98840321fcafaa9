"""Segments pictures and writes their outputs: reading, computing and encoding side by side."""

import functools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from unseg_jax.inference import batched
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.prediction import pictures
from unseg_jax.prediction.inputs import Picture
from unseg_jax.prediction.manifest import Row
from unseg_jax.prediction.pictures import Opened, Work
from unseg_jax.runtime import workers
from unseg_jax.runtime.prefetch import prefetch

BATCH_SIZE = 8  # Of pictures of one padded size, for each device.
THREADS = 8  # For reading, and as many for encoding and writing: a store answers slowly.


def segment(
  segmenter: Segmenter, work: Work, wanted: Iterable[Picture], count: int, processes: int
) -> Iterator[Row]:
  """Segments pictures; yields the manifest's row of each when its outputs are written.

  Memory does not grow with the number of pictures.

  Args:
    segmenter: finds the foreground.
    work: what is made of each picture.
    wanted: those to segment.
    count: their number, at most.
    processes: worker processes that read and encode; 0: threads of this process do.

  Raises:
    OSError: outputs cannot be written, such as on a full disk, or a store does not answer.
    workers.WorkerDied: a worker process ended in the middle of its work.
  """
  pictures.forget()
  batch_size = min(BATCH_SIZE, -(-count // segmenter.device_count))
  depth = max(2 * batch_size * segmenter.device_count, 2 * processes)
  with workers.executor(processes, 2 * THREADS) as executor:
    opened = prefetch(executor, functools.partial(pictures.read, work), wanted, depth)
    skipped: list[Row] = []
    answers = batched.logits(
      segmenter,
      _readable(opened, skipped),
      batch_size,
      lambda picture, reason: skipped.append(pictures.skipped(picture.picture, reason)),
    )
    for row in prefetch(executor, functools.partial(pictures.write, work), answers, depth):
      while skipped:
        yield skipped.pop()
      yield row
    yield from skipped


def _readable(
  opened: Iterator[Opened | Row], skipped: list[Row]
) -> Iterator[tuple[Opened, Sequence[np.ndarray]]]:
  """What the network takes; the rows of the others go to `skipped`."""
  for item in opened:
    if isinstance(item, Opened):
      yield item._replace(views=()), item.views
    else:
      skipped.append(item)
