"""Segments pictures and writes their outputs: reading, computing and encoding side by side."""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from unseg_jax.array_types import Float, UInt8
from unseg_jax.images import reading
from unseg_jax.inference import batched, refinement
from unseg_jax.inference.segmenter import Segmenter, combine
from unseg_jax.prediction.manifest import Row
from unseg_jax.prediction.outputs import Encode
from unseg_jax.prediction.plan import Picture
from unseg_jax.runtime.prefetch import prefetch
from unseg_jax.storage import places
from unseg_jax.storage.file_trees import FileTree
from unseg_jax.storage.stores import Store, open_store

BATCH_SIZE = 8  # Of pictures of one padded size, for each device.
THREADS = 8  # That read, and as many that encode and write: a store answers slowly.


@dataclasses.dataclass(frozen=True)
class Job:
  """What is made of every picture.

  Attributes:
    segmenter: finds the foreground.
    encoders: of the outputs, by the ending of their names.
    output: receives them.
    refine: one of `refinement.METHODS`.
    average: whether to average over several views; see `Segmenter.views`.
    max_pixels: pictures of more are skipped.
  """

  segmenter: Segmenter
  encoders: Mapping[str, Encode]
  output: FileTree
  refine: str
  average: bool
  max_pixels: int = reading.MAX_PIXELS


class _Opened(NamedTuple):
  picture: Picture
  image: UInt8[np.ndarray, "h w 3"]
  views: Sequence[UInt8[np.ndarray, "_ _ 3"]]  # Of the image, as the network takes it.


def segment(job: Job, pictures: Iterable[Picture], count: int) -> Iterator[Row]:
  """Segments pictures; yields the manifest's row of each when its outputs are written.

  Memory does not grow with the number of pictures.

  Args:
    job: what is made of each.
    pictures: those to segment.
    count: their number, at most.

  Raises:
    OSError: an output cannot be written.
  """
  batch_size = min(BATCH_SIZE, -(-count // job.segmenter.device_count))
  depth = 2 * batch_size * job.segmenter.device_count
  with (
    concurrent.futures.ThreadPoolExecutor(THREADS) as readers,
    concurrent.futures.ThreadPoolExecutor(THREADS) as writers,
  ):
    opened = prefetch(readers, functools.partial(_open, job), pictures, depth)
    skipped: list[Row] = []
    answers = batched.logits(job.segmenter, _readable(opened, skipped), batch_size)
    for row in prefetch(writers, lambda answer: _write(job, *answer), answers, depth):
      while skipped:
        yield skipped.pop()
      yield row
    yield from skipped


def _readable(
  opened: Iterator[_Opened | Row], skipped: list[Row]
) -> Iterator[tuple[_Opened, Sequence[np.ndarray]]]:
  """What the network takes; the rows of the others go to `skipped`."""
  for item in opened:
    if isinstance(item, _Opened):
      yield item, item.views
    else:
      skipped.append(item)


def _open(job: Job, picture: Picture) -> _Opened | Row:
  """Reads a picture; returns the row that says why, if it cannot be read."""
  try:
    image = reading.read_picture(picture.source, _contents(picture.source), job.max_pixels)
  except (ValueError, FileNotFoundError) as error:
    return {"input": picture.source, "skipped": str(error)}
  return _Opened(picture, image, job.segmenter.views(image, job.average))


def _contents(source: str) -> bytes | None:
  """The contents of an object; None: it is a local file."""
  if not places.is_url(source):
    return None
  folder, _, name = source.rpartition("/")
  return _store(folder).read(name)


@functools.lru_cache(maxsize=1024)
def _store(url: str) -> Store:
  """Opens a store once: each time, its bucket is asked for."""
  return open_store(url)


def _write(job: Job, opened: _Opened, logits: Sequence[Float[np.ndarray, "_ _"]]) -> Row:
  image, target = opened.image, opened.picture.target
  height, width = image.shape[:2]
  probability = refinement.refine(combine(logits, (height, width)), image, job.refine)
  for ending, encode in job.encoders.items():
    job.output.write(target + ending, encode(image, probability))
  return {
    "input": opened.picture.source,
    "outputs": [target + ending for ending in job.encoders],
    "width": width,
    "height": height,
    "foreground": round(float((probability > 0.5).mean()), 4),
  }
