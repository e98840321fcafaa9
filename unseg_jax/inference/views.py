"""Conversion of an image to network inputs, and of logits to a probability map, without JAX.

An image becomes one or several views: resized copies that the network takes as input. `combine`
turns their logits into the probability of foreground at any size. An extremely long view is
divided into pieces.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from unseg_jax.array_types import Float, UInt8
from unseg_jax.errors import InvalidValue

SCALES = (0.75, 1.0, 1.5)  # Relative to the image size in training; an average uses all of them.

# The network is compiled for each input shape. To limit their number, views are padded to multiples
# of this. The network ignores the padding.
PADDED_TO = 32

LONG = 8  # The aspect ratio from which a view counts as long.
# A long view with more pixels is refused. At 128 pixels, this is an aspect ratio of 1,024. Such a
# view takes 50 MB and its logits take 67 MB.
LARGEST_VIEW = 2**24
# A long view with more pixels is divided into pieces of about this many. Logits closer than
# `MARGIN` to the end of a piece are taken from its neighbour.
PIECE_PIXELS = 2**21
MARGIN = 4 * PADDED_TO


def views(
  image: UInt8[np.ndarray, "_ _ 3"], image_size: int, average: bool
) -> list[UInt8[np.ndarray, "_ _ 3"]]:
  """Returns the network's inputs for an image; `combine` takes their logits.

  Args:
    image: the image.
    image_size: the image size in training, which is the length of a view's shorter side.
    average: whether to return several views: the image and its mirror image at each of `SCALES`. If
      False, the only view is the image at `image_size`.

  Raises:
    ValueError: a view would be long and have more than `LARGEST_VIEW` pixels.
  """
  if not average:
    return [resize_shorter_side(image, image_size)]
  scaled = [resize_shorter_side(image, round(scale * image_size)) for scale in SCALES]
  return [view for small in scaled for view in (small, small[:, ::-1])]


def padded_size(image: UInt8[np.ndarray, "h w 3"]) -> tuple[int, int]:
  """The (height, width) to which a view is padded."""
  height, width = (-(-side // PADDED_TO) * PADDED_TO for side in image.shape[:2])
  return height, width


class Piece(NamedTuple):
  """A part of a view, cut along its longer side.

  Attributes:
    axis: the longer side: 0 for height, 1 for width.
    start, stop: the range of the view along `axis` that the network takes as input.
    answers: the range of the view along `axis` whose logits are taken from this piece.
  """

  axis: int
  start: int
  stop: int
  answers: tuple[int, int]

  def of(self, view: np.ndarray) -> np.ndarray:
    """Cuts this piece out of a view."""
    return _between(view, self.axis, self.start, self.stop)


def pieces(size: tuple[int, int]) -> list[Piece]:
  """Divides a view of this (height, width) into pieces. Nearly every view is one piece.

  Pieces start at multiples of `PADDED_TO`, so that pooling aligns with that of the undivided view.
  They have the same length up to rounding, so that one compiled program serves all of them.
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
  # Logits switch from one piece to the next in the middle of their overlap.
  seams = [(before + after) // 2 for before, after in zip(stops, starts[1:], strict=False)]
  ends = zip([0, *seams], [*seams, long], strict=True)
  bounds = zip(starts, stops, ends, strict=True)
  return [Piece(axis, start, stop, answers) for start, stop, answers in bounds]


def join(
  parts: Sequence[Piece], logits: Sequence[Float[np.ndarray, "_ _"]]
) -> Float[np.ndarray, "_ _"]:
  """Joins the logits of a view's `pieces`."""
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
  """Returns the probability of foreground, float32, averaged over all `views`."""
  if len(logits) == 1:
    return foreground(logits[0], size)
  upright = (view[:, ::-1] if number % 2 else view for number, view in enumerate(logits))
  return np.mean([foreground(view, size) for view in upright], axis=0)


def foreground(
  logits: Float[np.ndarray, "_ _"], size: tuple[int, int]
) -> Float[np.ndarray, "{size[0]} {size[1]}"]:
  """Resizes logits to `size` and returns the probability of foreground, float32.

  Resizing the difference of two logits is exact: their softmax depends on the difference only, and
  resizing is linear.
  """
  with np.errstate(over="ignore"):  # 1 / (1 + infinity) is 0, as it should be.
    return 1 / (1 + np.exp(-resize_bilinear(logits, size)))


def resize_shorter_side(image: UInt8[np.ndarray, "_ _ 3"], size: int) -> UInt8[np.ndarray, "_ _ 3"]:
  """Resizes an image so that its shorter side has `size` pixels (Pillow's bilinear filter).

  Raises:
    ValueError: the result would be long and have more than `LARGEST_VIEW` pixels.
  """
  height, width = image.shape[:2]
  shorter = min(height, width)
  if shorter == size:
    return image
  # Truncated, as in torchvision's Resize.
  new_height, new_width = (
    size if side == shorter else int(size * side / shorter) for side in (height, width)
  )
  if new_height * new_width > max(LARGEST_VIEW, LONG * size**2):
    raise InvalidValue(
      f"the picture has {width} x {height} pixels, or {new_width} x {new_height} with the "
      f"segmenter's shorter side of {size}; expected at most {LARGEST_VIEW} pixels: cut it into "
      "pieces"
    )
  resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
  return np.asarray(resized)


def resize_bilinear(
  values: Float[np.ndarray, "_ _"], size: tuple[int, int]
) -> Float[np.ndarray, "{size[0]} {size[1]}"]:
  """Resizes to `size` (height, width): bilinear, half-pixel centres, no antialiasing."""
  if values.shape == tuple(size):
    return values
  # Two taps per axis rather than matrix products: for such small matrices, NumPy's BLAS threads
  # wait for each other in busy loops and take CPU time from the network.
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
  """Returns the two neighbours among `old` points of each of `new`, and the second one's weight."""
  position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
  before = position.astype(np.intp)
  return before, np.minimum(before + 1, old - 1), (position - before).astype(np.float32)
