"""Reads masks of any Pillow mode and determines the scale of their values."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from unseg_jax.array_types import Bool, Shaped
from unseg_jax.errors import InvalidValue
from unseg_jax.images import conversion

# Lossy compression changes pixels, so 0 and 1 may both be black.
LOSSY = ("JPEG", "MPO")


NAMED = 8  # The number of mask values that an error message lists.


class ClassNumbers(InvalidValue):
  """The values of a mask look like class numbers."""


class Levels(NamedTuple):
  """The values of a mask.

  Attributes:
    values: the value of each pixel, as bool, integers or floats.
    full_scale: the value of certain foreground.
  """

  values: Shaped[np.ndarray, "h w"]
  full_scale: float

  @property
  def foreground(self) -> Bool[np.ndarray, "h w"]:
    """True above half of full scale."""
    return self.values > self.full_scale / 2


def levels(image: Image.Image, name: str = "a mask", turn: bool = True) -> Levels:
  """Returns a mask's values, chosen as described in `reading.read_mask`.

  Args:
    image: the mask; it is not changed.
    name: the name of the mask in a warning about its EXIF data.
    turn: whether to apply the EXIF orientation.

  Raises:
    ValueError: the scale of its values is ambiguous.
    Exception: the file is damaged; errors of nearly any type occur.
  """
  lossless, step = image.format not in LOSSY, conversion.grey_step(image)
  image = conversion.load(image, name, turn)
  if conversion.is_deep(image):
    values = np.asarray(image)
    conversion.deep_scale(image, values)  # Raises for values without a valid scale.
  else:
    values = _deciding_channel(image)
  if step > 1 and 0 < values.max() <= step:
    return Levels(values, step)
  return Levels(values, full_scale(values, lossless))


def full_scale(values: Shaped[np.ndarray, "h w"], lossless: bool = True) -> float:
  """Returns the value of certain foreground in a mask.

  It is 1 for bool values and if no value exceeds 1. Otherwise it is 255 if no value exceeds 255,
  and 65535 above. A mask of only 0 is background on any scale.

  Args:
    values: the values of a mask.
    lossless: whether the file format preserves pixels; if not, 1 may stand for black.

  Raises:
    ClassNumbers: the values look like class numbers.
  """
  highest = float(values.max(initial=0))
  if values.dtype == bool or (lossless and 0 < highest <= 1):
    return 1.0
  if lossless and 0 < highest < conversion.SMALLEST_GREY:
    raise ClassNumbers(
      f"it holds the values {np.unique(values).tolist()[:NAMED]}, which look like class numbers; "
      "expected only foreground and background, such as 1 and 0, or 255 and 0"
    )
  return next(scale for scale in (255.0, 65535.0, 2.0**31 - 1) if highest <= scale)


def _deciding_channel(image: Image.Image) -> np.ndarray:
  """Returns a colour cut-out's opacity; otherwise the first channel that varies, or the first."""
  if image.mode in ("1", "L"):
    return np.asarray(image)
  is_palette = image.mode in ("P", "PA")
  # Conversion to RGBA resolves a palette and keeps the colours of transparent pixels.
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
  """Whether the image has a photograph's colours, and its opacity has two levels."""
  coloured = (red != green).any() or (red != blue).any()
  between = ((red > 0) & (red < 255)).any()
  return bool(coloured and between and opacity.max() > 127 >= opacity.min())
