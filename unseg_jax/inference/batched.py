"""Many pictures through the network: in batches of one padded size, on all devices of a process."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from unseg_jax.inference.segmenter import Segmenter, padded_size

Tag = TypeVar("Tag")
# So many batches may wait for their last pictures; then the fullest runs with what it has.
WAITING_BATCHES = 4


def logits(
  segmenter: Segmenter, pictures: Iterable[tuple[Tag, Sequence[np.ndarray]]], batch_size: int
) -> Iterator[tuple[Tag, list[np.ndarray]]]:
  """Runs the network on the views of pictures.

  Every picture is computed alone within its batch: neither the batch size, nor the number of
  devices, nor the order in which batches fill up changes a result.

  Args:
    segmenter: the segmenter.
    pictures: each with a tag of the caller's and its `Segmenter.views`.
    batch_size: how many views of one padded size each device takes at a time.

  Yields:
    Each tag, when all its views are computed, with their logits `[h, w]` float32.
  """
  size = batch_size * segmenter.device_count
  waiting: dict[tuple[int, int], list[tuple[_Open, int]]] = {}

  def run(views):
    # Filled up with copies: another batch size would compile the network again.
    images = [picture.views[number] for picture, number in views]
    images += images[:1] * (size - len(images))
    for (picture, number), found in zip(views, segmenter.small_logits(images), strict=False):
      picture.found[number] = found
      if len(picture.found) == len(picture.views):
        yield picture.tag, [picture.found[i] for i in range(len(picture.views))]

  for tag, views in pictures:
    picture = _Open(tag, views)
    for number, view in enumerate(views):
      same = waiting.setdefault(padded_size(view), [])
      same.append((picture, number))
      if len(same) == size:
        yield from run(waiting.pop(padded_size(view)))
      elif sum(map(len, waiting.values())) >= WAITING_BATCHES * size:
        yield from run(waiting.pop(max(waiting, key=lambda key: len(waiting[key]))))
  for views in waiting.values():
    yield from run(views)


@dataclasses.dataclass
class _Open:
  """A picture some of whose views are not computed yet."""

  tag: Any
  views: Sequence[np.ndarray]
  found: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)
