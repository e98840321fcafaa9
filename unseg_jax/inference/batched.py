"""Batched inference: pictures of one padded size together, on all devices of a process."""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

import numpy as np

from unseg_jax.array_types import Float, UInt8
from unseg_jax.errors import InvalidValue
from unseg_jax.inference import views as view_lib
from unseg_jax.inference.segmenter import Segmenter

Tag = TypeVar("Tag")
# Of a batch, for each device, unless a single view or a piece of one has more.
BATCH_PIXELS = 2**21
# The number of batches that are filled at the same time; beyond it the fullest runs as it is.
OPEN_BATCHES = 4
# The number of batches on the devices: one is computed, and the next is there already.
STARTED_BATCHES = 2
# What XLA and onnxruntime say when memory does not suffice.
_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Failed to allocate memory", "bad allocation")


def _refuse(tag: Any, reason: str) -> NoReturn:
  raise InvalidValue(reason)


def logits(
  segmenter: Segmenter,
  pictures: Iterable[tuple[Tag, Sequence[UInt8[np.ndarray, "_ _ 3"]]]],
  batch_size: int,
  refuse: Callable[[Tag, str], None] = _refuse,
) -> Iterator[tuple[Tag, list[Float[np.ndarray, "_ _"]]]]:
  """Runs the network on the views of pictures.

  Every picture is computed alone within its batch: neither the batch size, nor the number of
  devices, nor the order in which batches fill up changes a result. A batch for which the device's
  memory does not suffice is halved, and so are those of its shape that follow.

  Args:
    segmenter: the segmenter.
    pictures: each with a tag of the caller's and its `Segmenter.views`.
    batch_size: the number of views of one padded size that each device takes at a time; fewer, if
      they would have more than `BATCH_PIXELS` pixels.
    refuse: is called with a picture's tag, and the reason, if memory does not suffice for it alone;
      by default it raises.

  Yields:
    Each tag, when all its views are computed, with their logits in float32.

  Raises:
    ValueError: a picture does not fit, and nothing else is to happen then.
  """
  batches = _Batches(segmenter, batch_size)
  for tag, views in pictures:
    parts = [view_lib.pieces(view.shape[:2]) for view in views]
    picture = _Picture(tag, views, parts)
    for number, pieces in enumerate(parts):
      for index, piece in enumerate(pieces):
        if picture.problem:
          break
        batches.add(_Part(picture, (number, index), piece.of(views[number])))
        yield from _answered(batches.run_full(), refuse)
  yield from _answered(batches.run_all(), refuse)


@dataclasses.dataclass(eq=False)
class _Picture(Generic[Tag]):
  """A picture, and the logits of those pieces of its views that are computed already.

  Attributes:
    tag: the caller's.
    views: what the network sees.
    parts: the pieces of each view.
    logits: by the numbers of view and piece.
    problem: why it was refused.
  """

  tag: Tag
  views: Sequence[np.ndarray]
  parts: Sequence[Sequence[view_lib.Piece]]
  logits: dict[tuple[int, int], np.ndarray] = dataclasses.field(default_factory=dict)
  problem: str = ""

  def is_answered(self) -> bool:
    return len(self.logits) == sum(map(len, self.parts))

  def joined(self) -> list[np.ndarray]:
    """The logits of each view."""
    return [
      view_lib.join(pieces, [self.logits[number, index] for index in range(len(pieces))])
      for number, pieces in enumerate(self.parts)
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class _Part:
  """A piece of a view of a picture: what the network sees at a time."""

  picture: _Picture
  number: tuple[int, int]
  image: np.ndarray


def _answered(
  pictures: Iterable[_Picture[Tag]], refuse: Callable[[Tag, str], None]
) -> Iterator[tuple[Tag, list[np.ndarray]]]:
  for picture in pictures:
    if picture.problem:
      refuse(picture.tag, picture.problem)
    else:
      yield picture.tag, picture.joined()


class _Started(NamedTuple):
  """A batch on the devices: `filled` images, of which those beyond `parts` are copies."""

  size: tuple[int, int]
  parts: Sequence[_Part]
  filled: int
  fetch: Callable[[], list[np.ndarray]]


@dataclasses.dataclass
class _Batches:
  """The batches that are being filled, by their padded (height, width).

  Attributes:
    segmenter: runs them.
    batch_size: the largest, for each device.
    waiting: what each batch holds so far.
    started: those on the devices.
    fitting: the number for each device, where memory did not suffice for more.
  """

  segmenter: Segmenter
  batch_size: int
  waiting: dict[tuple[int, int], list[_Part]] = dataclasses.field(default_factory=dict)
  started: collections.deque[_Started] = dataclasses.field(default_factory=collections.deque)
  fitting: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)

  def add(self, part: _Part) -> None:
    self.waiting.setdefault(view_lib.padded_size(part.image), []).append(part)

  def run_full(self) -> Iterator[_Picture]:
    """Runs what is full, or the fullest if too much waits; yields what is answered by it."""
    for size, parts in list(self.waiting.items()):
      if len(parts) >= self._capacity(size):
        yield from self._run(size)
    while self._too_much_waits():
      yield from self._run(max(self.waiting, key=lambda size: len(self.waiting[size])))

  def run_all(self) -> Iterator[_Picture]:
    """Runs what is left."""
    while self.waiting or self.started:
      yield from self._run(next(iter(self.waiting))) if self.waiting else self._finish_one()

  def _too_much_waits(self) -> bool:
    most = OPEN_BATCHES * self.segmenter.device_count
    count = sum(map(len, self.waiting.values()))
    pixels = sum(len(parts) * _pixels(size) for size, parts in self.waiting.items())
    return count >= most * self.batch_size or pixels >= most * BATCH_PIXELS

  def _capacity(self, size: tuple[int, int]) -> int:
    """The number of views or pieces in a batch over all devices."""
    by_pixels = max(1, BATCH_PIXELS // _pixels(size))
    each = min(self.batch_size, by_pixels, self.fitting.get(size, self.batch_size))
    return each * self.segmenter.device_count

  def _run(self, size: tuple[int, int]) -> Iterator[_Picture]:
    """Starts what waits of a size, and finishes what is beyond `STARTED_BATCHES`."""
    parts = [part for part in self.waiting.pop(size) if not part.picture.problem]
    while parts:
      capacity = self._capacity(size)
      batch, parts = parts[:capacity], parts[capacity:]
      # Filled up with copies: another batch size would compile the network again.
      images = [part.image for part in batch + batch[:1] * (capacity - len(batch))]
      try:
        self.started.append(_Started(size, batch, len(images), self.segmenter.start(images)))
      except Exception as error:
        yield from self._make_do(error, size, batch, len(images))
      while len(self.started) >= STARTED_BATCHES:
        yield from self._finish_one()

  def _finish_one(self) -> Iterator[_Picture]:
    started = self.started.popleft()
    try:
      computed = started.fetch()
    except Exception as error:
      yield from self._make_do(error, started.size, started.parts, started.filled)
      return
    for part, logits in zip(started.parts, computed, strict=False):
      part.picture.logits[part.number] = logits
      if part.picture.is_answered():
        yield part.picture

  def _make_do(
    self, error: Exception, size: tuple[int, int], parts: Sequence[_Part], filled: int
  ) -> Iterator[_Picture]:
    """Goes on after an error of a batch: smaller, or without its pictures."""
    if not is_out_of_memory(error):
      raise error
    each = filled // self.segmenter.device_count
    if each > 1:
      self.fitting[size] = min(each // 2, self.fitting.get(size, each))
      self.waiting[size] = [*parts, *self.waiting.get(size, [])]
      return
    for picture in dict.fromkeys(part.picture for part in parts if not part.picture.problem):
      picture.problem = (
        "memory does not suffice, not even for it alone: the segmenter sees it as "
        f"{size[1]} x {size[0]} pixels"
      )
      yield picture


def is_out_of_memory(error: BaseException) -> bool:
  """Whether an error says that the memory of the device or of the host does not suffice."""
  return isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


def _pixels(size: tuple[int, int]) -> int:
  return size[0] * size[1]
