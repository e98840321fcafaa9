"""Segments pictures and writes their outputs: reading, computing and encoding side by side."""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from unseg_jax.images import reading
from unseg_jax.inference import batched, refinement
from unseg_jax.inference.segmenter import Segmenter, combine
from unseg_jax.prediction.manifest import Row
from unseg_jax.prediction.outputs import Encode
from unseg_jax.prediction.plan import Picture
from unseg_jax.runtime.prefetch import prefetch
from unseg_jax.storage import places
from unseg_jax.storage.file_trees import FileTree
from unseg_jax.storage.stores import open_store

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
  """

  segmenter: Segmenter
  encoders: Mapping[str, Encode]
  output: FileTree
  refine: str
  average: bool


class _Read(NamedTuple):
  picture: Picture
  image: np.ndarray | None  # uint8 [H, W, 3]; None: it cannot be read.
  views: Sequence[np.ndarray]  # Of the image, as the network takes it.
  problem: str | None  # Why it cannot.


def segment(job: Job, pictures: Iterable[Picture], count: int) -> Iterator[Row]:
  """Segments pictures; yields the manifest's row of each when its outputs are written.

  Memory does not grow with the number of pictures.

  Args:
    job: what is made of each.
    pictures: those to segment.
    count: how many there are at most.

  Raises:
    OSError: an output cannot be written.
  """
  batch_size = min(BATCH_SIZE, -(-count // job.segmenter.device_count))
  depth = 2 * batch_size * job.segmenter.device_count
  with (
    concurrent.futures.ThreadPoolExecutor(THREADS) as readers,
    concurrent.futures.ThreadPoolExecutor(THREADS) as writers,
  ):
    read = prefetch(readers, functools.partial(_read, job), pictures, depth)
    skipped: list[Row] = []
    found = batched.logits(job.segmenter, _readable(read, skipped), batch_size)
    for row in prefetch(writers, lambda entry: _write(job, *entry), found, depth):
      while skipped:
        yield skipped.pop()
      yield row
    yield from skipped


def _readable(
  pictures: Iterator[_Read], skipped: list[Row]
) -> Iterator[tuple[_Read, Sequence[np.ndarray]]]:
  """What the network takes; the rows of the others go to `skipped`."""
  for read in pictures:
    if read.problem is None:
      yield read, read.views
    else:
      skipped.append({"input": read.picture.source, "skipped": read.problem})


def _read(job: Job, picture: Picture) -> _Read:
  try:
    image = reading.read_picture(picture.source, _contents(picture.source))
  except (ValueError, FileNotFoundError) as error:
    return _Read(picture, None, (), str(error))
  return _Read(picture, image, job.segmenter.views(image, job.average), None)


def _contents(source: str) -> bytes | None:
  """What an object holds; None: it is a local file."""
  if not places.is_url(source):
    return None
  folder, _, name = source.rpartition("/")
  return _store(folder).read(name)


# Opening asks whether the bucket is there.
_store: Callable = functools.lru_cache(maxsize=1024)(open_store)


def _write(job: Job, read: _Read, logits: Sequence[np.ndarray]) -> Row:
  image, target = read.image, read.picture.target
  height, width = image.shape[:2]
  probability = refinement.refine(combine(logits, (height, width)), image, job.refine)
  for ending, encode in job.encoders.items():
    job.output.write(target + ending, encode(image, probability))
  return {
    "input": read.picture.source,
    "outputs": [target + ending for ending in job.encoders],
    "width": width,
    "height": height,
    "foreground": round(float((probability > 0.5).mean()), 4),
  }
