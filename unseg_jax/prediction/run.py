"""Segments images and writes their outputs; reads, computes and encodes concurrently."""

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

BATCH_SIZE = 8  # Images of one padded size on each device.
THREADS = 8  # For reading, and as many for writing, since a store responds slowly.


def segment(
  segmenter: Segmenter, work: Work, wanted: Iterable[Picture], count: int, processes: int
) -> Iterator[Row]:
  """Segments images; yields the manifest row of each once its outputs are written.

  Memory use does not depend on the number of images.

  Args:
    segmenter: the segmenter.
    work: the settings.
    wanted: the images.
    count: an upper bound of their number.
    processes: the number of worker processes that read and encode; 0: threads do.

  Raises:
    OSError: outputs cannot be written, for example because the disk is full, or a store does not
      respond.
    workers.WorkerDied: a worker process ended unexpectedly.
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
  """Yields images with the network's inputs; appends the rows of unreadable ones to `skipped`."""
  for item in opened:
    if isinstance(item, Opened):
      yield item._replace(views=()), item.views
    else:
      skipped.append(item)
