"""Masks of any mode that Pillow knows, and the scale on which their values lie."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from unseg_jax.array_types import Bool, Shaped
from unseg_jax.errors import InvalidValue
from unseg_jax.images import conversion

# Their pixels are not those that were saved, so that 0 and 1 may both be black.
LOSSY = ("JPEG", "MPO")


NAMED = 8  # Of a mask's values, in a message.


class ClassNumbers(InvalidValue):
  """The values of a mask look like numbers of classes."""


class Levels(NamedTuple):
  """The values of a mask.

  Attributes:
    values: of each pixel, bool, integers or floats.
    full_scale: the value of what is certainly foreground.
  """

  values: Shaped[np.ndarray, "h w"]
  full_scale: float

  @property
  def foreground(self) -> Bool[np.ndarray, "h w"]:
    """True above half of full scale."""
    return self.values > self.full_scale / 2


def levels(image: Image.Image, name: str = "a mask", turn: bool = True) -> Levels:
  """Returns a mask's values, as `reading.read_mask` says which count.

  Args:
    image: the mask; it stays as it is.
    name: what a warning about its EXIF calls it.
    turn: whether to turn it upright, if its EXIF orientation says how.

  Raises:
    ValueError: its values have no scale that would be plain.
    Exception: of nearly any type, if the file is damaged.
  """
  lossless, step = image.format not in LOSSY, conversion.grey_step(image)
  image = conversion.load(image, name, turn)
  if conversion.is_deep(image):
    values = np.asarray(image)
    conversion.deep_scale(image, values)  # Raises for values that are on none.
  else:
    values = _deciding_channel(image)
  if step > 1 and 0 < values.max() <= step:
    return Levels(values, step)
  return Levels(values, full_scale(values, lossless))


def full_scale(values: Shaped[np.ndarray, "h w"], lossless: bool = True) -> float:
  """The value of what is certainly foreground, of a mask's values.

  It is 1 for bool, and where no value exceeds 1; else 255 where none exceeds that; else 65535.
  A mask of nothing but 0 is background on any scale.

  Args:
    values: of a mask.
    lossless: whether its pixels are those that were saved; else 1 may stand for black.

  Raises:
    ClassNumbers: the values look like numbers of classes.
  """
  highest = float(values.max(initial=0))
  if values.dtype == bool or (lossless and 0 < highest <= 1):
    return 1.0
  if lossless and 0 < highest < conversion.SMALLEST_GREY:
    raise ClassNumbers(
      f"it holds the values {np.unique(values).tolist()[:NAMED]}, which look like class numbers; "
      "expected foreground and background alone, such as 1 and 0, or 255 and 0"
    )
  return next(scale for scale in (255.0, 65535.0, 2.0**31 - 1) if highest <= scale)


def _deciding_channel(image: Image.Image) -> np.ndarray:
  """The opacity of a cut-out in colour; else the first channel that varies, or the first."""
  if image.mode in ("1", "L"):
    return np.asarray(image)
  is_palette = image.mode in ("P", "PA")
  # By way of RGBA, a palette becomes colours while those of transparent pixels are kept.
  if image.mode == "La":
    image = image.convert("LA")
  elif image.mode not in ("LA", "RGB", "RGBA"):
    opaque = image.mode == "CMYK" or not image.has_transparency_data
    image = image.convert("RGB" if opaque else "RGBA")
  channels = [np.asarray(channel) for channel in image.split()]
  if image.mode == "RGBA" and not is_palette and _is_cutout(*channels):
    return channels[3]
  return next((channel for channel in channels if np.ptp(channel)), channels[0])


def _is_cutout(red: np.ndarray, green: np.ndarray, blue: np.ndarray, opacity: np.ndarray) -> bool:
  """Whether the colours are a picture's rather than a mask's, and the opacity has two sides."""
  coloured = (red != green).any() or (red != blue).any()
  between = ((red > 0) & (red < 255)).any()
  return bool(coloured and between and opacity.max() > 127 >= opacity.min())
