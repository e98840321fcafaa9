"""Batched inference: groups images by padded size and runs them on all devices of a process."""

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
# The most pixels of a batch on each device. A single view or piece that is larger runs alone.
BATCH_PIXELS = 2**21
# The number of batches filled at a time. Beyond it, the fullest batch runs although it has space.
OPEN_BATCHES = 4
# The number of batches on the devices: one is computed while the next is transferred.
STARTED_BATCHES = 2
# Messages of XLA and onnxruntime when they run out of memory.
_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Failed to allocate memory", "bad allocation")


def _refuse(tag: Any, reason: str) -> NoReturn:
  raise InvalidValue(reason)


def logits(
  segmenter: Segmenter,
  pictures: Iterable[tuple[Tag, Sequence[UInt8[np.ndarray, "_ _ 3"]]]],
  batch_size: int,
  refuse: Callable[[Tag, str], None] = _refuse,
) -> Iterator[tuple[Tag, list[Float[np.ndarray, "_ _"]]]]:
  """Runs the network on the views of images.

  The network treats the images of a batch independently: batch size, number of devices and the
  order in which batches fill up do not change a result. If a batch exceeds the device's memory, it
  is halved, and so are later batches of its shape.

  Args:
    segmenter: the segmenter.
    pictures: pairs of a caller's tag and the image's `Segmenter.views`.
    batch_size: the most views of one padded size that each device takes at a time. `BATCH_PIXELS`
      may reduce it.
    refuse: called with the tag and the reason if an image does not fit into memory even alone. The
      default raises.

  Yields:
    Each tag with the float32 logits of its views, once all of them are computed.

  Raises:
    ValueError: an image does not fit into memory and `refuse` is the default.
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
  """An image, with the logits of those pieces of its views that are computed.

  Attributes:
    tag: the caller's tag.
    views: the network's inputs.
    parts: the pieces of each view.
    logits: computed logits, by (view number, piece number).
    problem: the reason for refusing the image; empty if it is not refused.
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
  """A piece of a view: one input of the network."""

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
  """A batch on the devices. It has `filled` images; those beyond `parts` are copies."""

  size: tuple[int, int]
  parts: Sequence[_Part]
  filled: int
  fetch: Callable[[], list[np.ndarray]]


@dataclasses.dataclass
class _Batches:
  """The batches that are being filled or computed.

  Attributes:
    segmenter: runs the batches.
    batch_size: the most images per device.
    waiting: the contents of each unfinished batch, by padded (height, width).
    started: the batches on the devices.
    fitting: the images per device that fit into memory, for sizes that ran out of memory.
  """

  segmenter: Segmenter
  batch_size: int
  waiting: dict[tuple[int, int], list[_Part]] = dataclasses.field(default_factory=dict)
  started: collections.deque[_Started] = dataclasses.field(default_factory=collections.deque)
  fitting: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)

  def add(self, part: _Part) -> None:
    self.waiting.setdefault(view_lib.padded_size(part.image), []).append(part)

  def run_full(self) -> Iterator[_Picture]:
    """Runs full batches, and the fullest if too much waits; yields the images that are done."""
    for size, parts in list(self.waiting.items()):
      if len(parts) >= self._capacity(size):
        yield from self._run(size)
    while self._too_much_waits():
      yield from self._run(max(self.waiting, key=lambda size: len(self.waiting[size])))

  def run_all(self) -> Iterator[_Picture]:
    """Runs the remaining batches."""
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
    """Starts the images of a size that wait; then finishes batches beyond `STARTED_BATCHES`."""
    parts = [part for part in self.waiting.pop(size) if not part.picture.problem]
    while parts:
      capacity = self._capacity(size)
      batch, parts = parts[:capacity], parts[capacity:]
      # Copies fill the batch up: XLA would recompile the network for another batch size.
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
    """Recovers from an out-of-memory error: halves the batch, or refuses its images."""
    if not is_out_of_memory(error):
      raise error
    each = filled // self.segmenter.device_count
    if each > 1:
      self.fitting[size] = min(each // 2, self.fitting.get(size, each))
      self.waiting[size] = [*parts, *self.waiting.get(size, [])]
      return
    for picture in dict.fromkeys(part.picture for part in parts if not part.picture.problem):
      picture.problem = (
        f"out of memory: the segmenter's input has {size[1]} x {size[0]} pixels for this picture "
        "alone"
      )
      yield picture


def is_out_of_memory(error: BaseException) -> bool:
  """Whether an error means that the device or the host ran out of memory."""
  return isinstance(error, MemoryError) or any(words in str(error) for words in _OUT_OF_MEMORY)


def _pixels(size: tuple[int, int]) -> int:
  return size[0] * size[1]
