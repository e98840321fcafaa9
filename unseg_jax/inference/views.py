"""What a segmenter's network sees of a picture, and the way back: NumPy and Pillow, no JAX.

A picture becomes one or several views, small pictures that the network takes; `combine` makes the
probability of foreground, at any size, of their logits. A view that is extremely long goes through
the network in pieces.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from unseg_jax.array_types import Float, UInt8
from unseg_jax.errors import InvalidValue

SCALES = (0.75, 1.0, 1.5)  # Of the training's size, which an average is taken over.

# A network is compiled for each shape that it sees. Pictures are therefore padded to multiples of
# this; the network ignores the padding.
PADDED_TO = 32

LONG = 8  # One side of a view is so many times the other.
# A long view of more pixels is refused: at 128 pixels, a side of 1,024 times the other. It takes
# 50 MB, and its logits 67 MB.
LARGEST_VIEW = 2**24
# A long view of more pixels goes through the network in pieces of about so many. What is nearer to
# a piece's end than `MARGIN`, another piece answers.
PIECE_PIXELS = 2**21
MARGIN = 4 * PADDED_TO


def views(
  image: UInt8[np.ndarray, "_ _ 3"], image_size: int, average: bool
) -> list[UInt8[np.ndarray, "_ _ 3"]]:
  """Returns what the network sees of a picture; `combine` takes the logits of these views.

  Args:
    image: the picture.
    image_size: the training's size, which the view's shorter side gets.
    average: whether to return several views: at each of `SCALES` the picture, followed by its
      mirror image; else the only view is the picture at the training's size.

  Raises:
    ValueError: a view would be long and have more than `LARGEST_VIEW` pixels.
  """
  if not average:
    return [resize_shorter_side(image, image_size)]
  scaled = [resize_shorter_side(image, round(scale * image_size)) for scale in SCALES]
  return [view for small in scaled for view in (small, small[:, ::-1])]


def padded_size(image: UInt8[np.ndarray, "h w 3"]) -> tuple[int, int]:
  """The (height, width) to which a small picture is padded."""
  height, width = (-(-side // PADDED_TO) * PADDED_TO for side in image.shape[:2])
  return height, width


class Piece(NamedTuple):
  """A part of a view between two places of its longer side.

  Attributes:
    axis: which side that is: 0, the height, or 1.
    start, stop: what the network sees.
    answers: from where to where its answer is taken, counted as `start` is.
  """

  axis: int
  start: int
  stop: int
  answers: tuple[int, int]

  def of(self, view: np.ndarray) -> np.ndarray:
    """What the network sees of a view."""
    return _between(view, self.axis, self.start, self.stop)


def pieces(size: tuple[int, int]) -> list[Piece]:
  """Divides a view of this (height, width); nearly all are one piece.

  Pieces start at multiples of `PADDED_TO`, where the network's own cells do, and are equally long
  but for rounding, so that one compiled program serves them all.
  """
  axis = int(size[1] > size[0])
  long, short = size[axis], size[1 - axis]
  if long * short <= PIECE_PIXELS or long < LONG * short:
    return [Piece(axis, 0, long, (0, long))]
  length = max(LONG * short, PIECE_PIXELS // short) // PADDED_TO * PADDED_TO
  count = 1 + math.ceil((long - length) / (length - 2 * MARGIN - PADDED_TO))
  last = -(-(long - length) // PADDED_TO) * PADDED_TO
  starts = [round(last * i / max(1, count - 1) / PADDED_TO) * PADDED_TO for i in range(count)]
  stops = [min(long, start + length) for start in starts]
  # In the middle of what two pieces see, the one's answer ends and the other's begins.
  seams = [(before + after) // 2 for before, after in zip(stops, starts[1:], strict=False)]
  ends = zip([0, *seams], [*seams, long], strict=True)
  bounds = zip(starts, stops, ends, strict=True)
  return [Piece(axis, start, stop, answers) for start, stop, answers in bounds]


def join(
  parts: Sequence[Piece], logits: Sequence[Float[np.ndarray, "_ _"]]
) -> Float[np.ndarray, "_ _"]:
  """Returns the logits of a view, of those of its `pieces`."""
  if len(parts) == 1:
    return logits[0]
  answers = [
    _between(values, part.axis, *(place - part.start for place in part.answers))
    for part, values in zip(parts, logits, strict=True)
  ]
  return np.concatenate(answers, parts[0].axis)


def _between(array: np.ndarray, axis: int, start: int, stop: int) -> np.ndarray:
  return array[start:stop] if axis == 0 else array[:, start:stop]


def combine(
  logits: Sequence[Float[np.ndarray, "_ _"]], size: tuple[int, int]
) -> Float[np.ndarray, "{size[0]} {size[1]}"]:
  """The probability of foreground, float32: the mean over the logits of all `views`."""
  if len(logits) == 1:
    return foreground(logits[0], size)
  upright = (view[:, ::-1] if number % 2 else view for number, view in enumerate(logits))
  return np.mean([foreground(view, size) for view in upright], axis=0)


def foreground(
  logits: Float[np.ndarray, "_ _"], size: tuple[int, int]
) -> Float[np.ndarray, "{size[0]} {size[1]}"]:
  """Resizes logits to `size` and returns the probability of foreground, float32.

  The softmax of two logits depends on their difference alone, and resizing is linear.
  """
  with np.errstate(over="ignore"):  # 1 / (1 + infinity) is the right 0.
    return 1 / (1 + np.exp(-resize_bilinear(logits, size)))


def resize_shorter_side(image: UInt8[np.ndarray, "_ _ 3"], size: int) -> UInt8[np.ndarray, "_ _ 3"]:
  """Resizes a picture so that its shorter side has `size` pixels (Pillow's bilinear).

  Raises:
    ValueError: the result would be long and have more than `LARGEST_VIEW` pixels.
  """
  height, width = image.shape[:2]
  shorter = min(height, width)
  if shorter == size:
    return image
  # Truncated, as torchvision's Resize does.
  new_height, new_width = (
    size if side == shorter else int(size * side / shorter) for side in (height, width)
  )
  if new_height * new_width > max(LARGEST_VIEW, LONG * size**2):
    raise InvalidValue(
      f"the picture has {width} x {height} pixels, and {new_width} x {new_height} when its shorter "
      f"side has the {size} of the segmenter: more than the {LARGEST_VIEW} that are answered; cut "
      "it into pieces"
    )
  resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
  return np.asarray(resized)


def resize_bilinear(
  values: Float[np.ndarray, "_ _"], size: tuple[int, int]
) -> Float[np.ndarray, "{size[0]} {size[1]}"]:
  """Resizes to `size` (height, width): bilinear, half-pixel centres, not antialiased."""
  if values.shape == tuple(size):
    return values
  # Two taps per axis. Not as products of matrices: for these small ones, the
  # threads of NumPy's BLAS wait for each other in loops that take the processor from the network.
  for axis in (1, 0):
    values = _resize_axis(values, axis, size[axis])
  return values


def _resize_axis(values: np.ndarray, axis: int, new: int) -> np.ndarray:
  before, after, share = _half_pixel(values.shape[axis], new)
  start = values.take(before, axis)
  resized = values.take(after, axis)
  resized -= start
  resized *= share if axis else share[:, None]
  resized += start
  return resized


@functools.lru_cache(maxsize=64)
def _half_pixel(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """For each of `new` points its two neighbours among `old`, and the share of the second."""
  position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
  before = position.astype(np.intp)
  return before, np.minimum(before + 1, old - 1), (position - before).astype(np.float32)
