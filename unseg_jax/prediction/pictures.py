"""Reading one image and writing its outputs.

This runs in threads or in worker processes. The module does not import JAX, so that worker
processes start quickly.
"""

import contextlib
import dataclasses
import errno
import functools
import io
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from unseg_jax.array_types import Float, UInt8
from unseg_jax.errors import InvalidValue
from unseg_jax.images import reading
from unseg_jax.inference import refinement
from unseg_jax.inference.views import combine, views
from unseg_jax.prediction import inputs, outputs
from unseg_jax.prediction.inputs import Identity, Picture
from unseg_jax.prediction.manifest import Row
from unseg_jax.storage import file_trees

# The most decoded pixels that the threads of a process hold together; a single larger image is
# still processed. Writing outputs takes about 30 bytes per pixel.
DECODED_PIXELS = 2**26
# A larger image is not kept in memory; it is decoded again to write its outputs.
KEPT_PIXELS = 2**20

# Errors that end the run, since the next output would fail in the same way. None stands for errors
# of a store, which have no number and are raised only after retries.
_ENDS_THE_RUN = frozenset(
  (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENODEV, errno.ENXIO),
    *(errno.ESTALE, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT, None),
  )
)


@dataclasses.dataclass(frozen=True)
class Work:
  """The settings that apply to every image.

  Attributes:
    image_size: the segmenter's image size.
    average: whether to average over several views; see `views.views`.
    refine: one of `refinement.METHODS`.
    kinds: a subset of `outputs.KINDS`.
    background: the argument of `outputs.read_background`; None: no composite.
    animate: whether to write an animation.
    output: the output folder or its URL.
    made_by: the user's settings, as text.
    made_of: what determines the outputs besides the image; see `resuming.made_of`.
    max_pixels: images with more pixels are skipped.
  """

  image_size: int
  average: bool
  refine: str
  kinds: tuple[str, ...]
  background: str | None
  animate: bool
  output: str
  made_by: str
  made_of: dict[str, str] = dataclasses.field(hash=False)
  max_pixels: int = reading.MAX_PIXELS


class Opened(NamedTuple):
  """An image that was read.

  Attributes:
    picture: the input.
    identity: the image's identity when it was read.
    size: height and width.
    views: the network's inputs.
    image: the pixels, if they are needed again and number at most `KEPT_PIXELS`; else None.
  """

  picture: Picture
  identity: Identity
  size: tuple[int, int]
  views: Sequence[UInt8[np.ndarray, "_ _ 3"]]
  image: UInt8[np.ndarray, "h w 3"] | None


def read(work: Work, picture: Picture) -> Opened | Row:
  """Reads an image. If it cannot be segmented, returns a row with the reason.

  Raises:
    OSError: the store did not respond.
  """
  try:
    contents = inputs.fetch(picture)
    with _room.take(_pixels(picture, contents)):
      image, identity = inputs.read(picture, contents, work.max_pixels)
      seen = views(image, work.image_size, work.average)
  except InvalidValue as error:  # An inputs.Unreadable, or a view would be too long.
    return skipped(picture, str(error))
  except MemoryError:
    return skipped(picture, "out of memory while reading it")
  height, width = image.shape[:2]
  kept = image if _draws_on_it(work) and height * width <= KEPT_PIXELS else None
  return Opened(picture, identity, (height, width), seen, kept)


def _draws_on_it(work: Work) -> bool:
  """Whether an output needs the image's pixels, unlike an unrefined mask."""
  plain = work.refine == "none" and work.kinds == ("mask",)
  return not plain or work.background is not None or work.animate


def write(work: Work, answer: tuple[Opened, Sequence[Float[np.ndarray, "_ _"]]]) -> Row:
  """Writes all outputs of an image or none of them; returns its row.

  Args:
    work: the settings.
    answer: the image, and the logits of each of its views.

  Raises:
    OSError: an error that would affect every other image too, such as a full disk.
  """
  opened, logits = answer
  picture, (height, width) = opened.picture, opened.size
  image = functools.cache(
    lambda: _again(opened, work.max_pixels) if opened.image is None else opened.image
  )
  try:
    with _room.take(height * width):
      probability = combine(logits, opened.size)
      if work.refine != "none":
        probability = refinement.refine(probability, image(), work.refine)
      _write_all(work, picture, image, probability)
      foreground = round(float((probability > 0.5).mean()), 4)
  except inputs.Unreadable as error:
    return skipped(picture, str(error))
  except UnicodeEncodeError as error:
    return skipped(picture, f"the names of its outputs cannot be encoded: {error}")
  except MemoryError:
    return skipped(picture, "out of memory while writing its outputs")
  except OSError as error:
    if error.errno in _ENDS_THE_RUN:
      raise
    return skipped(picture, f"its outputs cannot be written: {error.strerror}")
  return {
    "input": picture.source,
    "outputs": [picture.target + ending for ending in _encoders(work)],
    "width": width,
    "height": height,
    "foreground": foreground,
    "made by": work.made_by,
    "made of": {**work.made_of, "input": opened.identity},
  }


def _write_all(
  work: Work, picture: Picture, image: Callable[[], np.ndarray], probability: np.ndarray
) -> None:
  tree, written = _tree(work.output), []
  try:
    for ending, encode in _encoders(work).items():
      tree.write(picture.target + ending, encode(image, probability))
      written.append(picture.target + ending)
  except Exception:
    for name in written:
      tree.remove(name)
    raise


def _again(opened: Opened, max_pixels: int) -> np.ndarray:
  contents = inputs.fetch(opened.picture)
  image, identity = inputs.read(opened.picture, contents, max_pixels)
  if identity != opened.identity or image.shape[:2] != opened.size:
    raise inputs.Unreadable(f"{opened.picture.source} changed during segmentation")
  return image


def skipped(picture: Picture, reason: str) -> Row:
  """Returns the row of an image that was not segmented."""
  named = reason if reason.startswith(picture.source) else f"{picture.source}: {reason}"
  return {"input": picture.source, "skipped": named}


@functools.lru_cache(maxsize=1)
def _encoders(work: Work) -> dict[str, outputs.Encode]:
  background = (
    None if work.background is None else outputs.read_background(work.background, work.max_pixels)
  )
  return outputs.encoders(work.kinds, background, work.animate)


@functools.lru_cache(maxsize=1)
def _tree(output: str) -> file_trees.FileTree:
  return file_trees.open_tree(output)


def forget() -> None:
  """Clears the caches: files may have changed since an earlier call in this process."""
  inputs.forget_stores()
  _encoders.cache_clear()
  _tree.cache_clear()


@dataclasses.dataclass
class _Room:
  """A budget of decoded pixels that the threads share.

  Attributes:
    free: the number of unused pixels.
    changed: notifies waiting threads when `free` grows.
  """

  free: int
  changed: threading.Condition = dataclasses.field(default_factory=threading.Condition)

  @contextlib.contextmanager
  def take(self, pixels: int) -> Iterator[None]:
    pixels = min(pixels, DECODED_PIXELS)
    with self.changed:
      self.changed.wait_for(lambda: self.free >= pixels)
      self.free -= pixels
    try:
      yield
    finally:
      with self.changed:
        self.free += pixels
        self.changed.notify_all()


_room = _Room(DECODED_PIXELS)


def _pixels(picture: Picture, contents: bytes | None) -> int:
  """Returns the number of pixels according to the file's header, or 0 if it is unreadable."""
  if contents is None and not os.path.isfile(picture.source):
    return 0
  # Decoders raise errors of nearly every type for damaged files; `read` reports the reason.
  with contextlib.suppress(Exception):
    source = picture.source if contents is None else io.BytesIO(contents)
    with reading.opened(source, max_pixels=sys.maxsize) as image:
      return image.width * image.height
  return 0
