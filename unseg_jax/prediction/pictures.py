"""What is done with one picture beside the network: reading, and writing what is made of it.

Threads or worker processes do it; nothing here imports JAX, so that these start at once.
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

# A process holds at most so many decoded pixels, in all its threads, or one picture of more. While
# its outputs are made, a pixel takes about 30 bytes.
DECODED_PIXELS = 2**26
# A larger picture is decoded again when its outputs are written, and not kept until then.
KEPT_PIXELS = 2**20

# What ends the run, as the next output will fail in the same way. Of a store's errors, which are
# waited out and have no number, all do.
_ENDS_THE_RUN = frozenset(
  (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENODEV, errno.ENXIO),
    *(errno.ESTALE, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT, None),
  )
)


@dataclasses.dataclass(frozen=True)
class Work:
  """What is made of every picture.

  Attributes:
    image_size: of the segmenter.
    average: whether to average over several views; see `views.views`.
    refine: one of `refinement.METHODS`.
    kinds: some of `outputs.KINDS`.
    background: what `outputs.read_background` takes; None: no composite.
    animate: whether to write an animation.
    output: the folder that receives the outputs, or its URL.
    made_by: the settings, as a user gave them.
    made_of: what of them matters: the identity of the segmenter and the like, by name.
    max_pixels: pictures of more are skipped.
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
  """A picture that was read.

  Attributes:
    picture: which.
    identity: what it was when it was read.
    size: height and width.
    views: as the network takes them.
    image: its pixels, if they are few and will be needed.
  """

  picture: Picture
  identity: Identity
  size: tuple[int, int]
  views: Sequence[UInt8[np.ndarray, "_ _ 3"]]
  image: UInt8[np.ndarray, "h w 3"] | None


def read(work: Work, picture: Picture) -> Opened | Row:
  """Reads a picture; returns the row that says why, if it cannot be segmented.

  Raises:
    OSError: its store did not answer.
  """
  try:
    contents = inputs.fetch(picture)
    with _room.take(_pixels(picture, contents)):
      image, identity = inputs.read(picture, contents, work.max_pixels)
      seen = views(image, work.image_size, work.average)
  except InvalidValue as error:  # Of inputs.Unreadable, or views that would be too long.
    return skipped(picture, str(error))
  except MemoryError:
    return skipped(picture, "memory does not suffice to read it")
  height, width = image.shape[:2]
  kept = image if _draws_on_it(work) and height * width <= KEPT_PIXELS else None
  return Opened(picture, identity, (height, width), seen, kept)


def _draws_on_it(work: Work) -> bool:
  """Whether anything but masks of the network's own is written."""
  plain = work.refine == "none" and work.kinds == ("mask",)
  return not plain or work.background is not None or work.animate


def write(work: Work, answer: tuple[Opened, Sequence[Float[np.ndarray, "_ _"]]]) -> Row:
  """Writes all outputs of a picture or none; returns its row.

  Args:
    work: what is made of it.
    answer: the picture, and the logits of each of its views.

  Raises:
    OSError: the disk is full, or something else that will stop all others, too.
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
    return skipped(picture, f"its outputs cannot be named so: {error}")
  except MemoryError:
    return skipped(picture, "memory does not suffice to make its outputs")
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
    raise inputs.Unreadable(f"{opened.picture.source} changed while it was segmented")
  return image


def skipped(picture: Picture, reason: str) -> Row:
  """The row of a picture that was not segmented."""
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
  """Opens everything anew, as it may have changed since an earlier call in this process."""
  inputs.forget_stores()
  _encoders.cache_clear()
  _tree.cache_clear()


@dataclasses.dataclass
class _Room:
  """Room for decoded pixels, which threads wait for.

  Attributes:
    free: the number of pixels.
    changed: tells those who wait.
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
  """The number of pixels that the file of a picture promises; 0: it cannot be asked."""
  if contents is None and not os.path.isfile(picture.source):
    return 0
  # Given damaged files, decoders raise errors of nearly every type; reading will say what is wrong.
  with contextlib.suppress(Exception):
    source = picture.source if contents is None else io.BytesIO(contents)
    with reading.opened(source, max_pixels=sys.maxsize) as image:
      return image.width * image.height
  return 0
