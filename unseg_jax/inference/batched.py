"""Batched inference: pictures of one padded size together, on all devices of a process."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

from unseg_jax.array_types import Float, UInt8
from unseg_jax.inference.segmenter import Segmenter, padded_size

Tag = TypeVar("Tag")
# The number of batches that are filled at the same time; beyond it the fullest runs as it is.
OPEN_BATCHES = 4
# The number of batches on the devices: one is computed, and the next is there already.
STARTED_BATCHES = 2


def logits(
  segmenter: Segmenter,
  pictures: Iterable[tuple[Tag, Sequence[UInt8[np.ndarray, "_ _ 3"]]]],
  batch_size: int,
) -> Iterator[tuple[Tag, list[Float[np.ndarray, "_ _"]]]]:
  """Runs the network on the views of pictures.

  Every picture is computed alone within its batch: neither the batch size, nor the number of
  devices, nor the order in which batches fill up changes a result.

  Args:
    segmenter: the segmenter.
    pictures: each with a tag of the caller's and its `Segmenter.views`.
    batch_size: the number of views of one padded size that each device takes at a time.

  Yields:
    Each tag, when all its views are computed, with their logits in float32.
  """
  size = batch_size * segmenter.device_count
  batches: dict[tuple[int, int], _Batch[Tag]] = {}
  started = collections.deque[tuple[_Batch[Tag], Callable[[], list[np.ndarray]]]]()

  def run(batch: _Batch[Tag]) -> Iterator[tuple[Tag, list[np.ndarray]]]:
    # Filled up with copies: another batch size would compile the network again.
    images = [picture.views[number] for picture, number in batch]
    images += images[:1] * (size - len(images))
    started.append((batch, segmenter.start(images)))
    if len(started) == STARTED_BATCHES:
      yield from finish_one()

  def finish_one() -> Iterator[tuple[Tag, list[np.ndarray]]]:
    batch, fetch = started.popleft()
    for (picture, number), view in zip(batch, fetch(), strict=False):
      picture.logits[number] = view
      if len(picture.logits) == len(picture.views):
        yield picture.tag, [picture.logits[i] for i in range(len(picture.views))]

  for tag, views in pictures:
    picture = _Picture(tag, views)
    for number, view in enumerate(views):
      batch = batches.setdefault(padded_size(view), [])
      batch.append((picture, number))
      if len(batch) == size:
        yield from run(batches.pop(padded_size(view)))
      elif sum(map(len, batches.values())) >= OPEN_BATCHES * size:
        yield from run(batches.pop(max(batches, key=lambda key: len(batches[key]))))
  for batch in batches.values():
    yield from run(batch)
  while started:
    yield from finish_one()


@dataclasses.dataclass
class _Picture(Generic[Tag]):
  """A picture, and the logits of those of its views that are computed already."""

  tag: Tag
  views: Sequence[np.ndarray]
  logits: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)


_Batch = list[tuple[_Picture[Tag], int]]  # Views, each of a picture, by their numbers.
