"""Converts images to sRGB by their embedded ICC profiles (ICC.1)."""

import functools
import io
import logging

import numpy as np
from PIL import Image, ImageCms

from unseg_jax.errors import InvalidValue

log = logging.getLogger(__name__)

# Maps the colour space of a profile to the image modes that it can describe.
_MODES = {"GRAY": ("L",), "RGB ": ("RGB", "L"), "CMYK": ("CMYK",)}
_LATTICE = np.linspace(0, 255, 9).round().astype(np.uint8)


def to_srgb(image: Image.Image, profile: bytes | None, name: str) -> Image.Image:
  """Converts an image to sRGB.

  Little CMS applies the profile with relative colorimetric intent and black point compensation.
  Colours outside sRGB become the nearest sRGB colour. If the profile is damaged or is for another
  colour space, the function logs a warning and ignores the profile.

  Args:
    image: an image of mode L, RGB or CMYK.
    profile: its ICC profile. None treats grey and RGB as sRGB, and converts CMYK without regard to
      inks.
    name: the name of the image in the warning.
  """
  if not profile:
    return image.convert("RGB")
  try:
    space, convert = _conversion(profile, image.mode)
  # Little CMS raises errors of several types.
  except Exception as error:
    reason = " ".join(str(error).split())
    log.warning("%s: its colour profile is ignored, because it cannot be used: %s", name, reason)
    return image.convert("RGB")
  image = image.convert("RGB") if space == "RGB " else image
  return image.convert("RGB") if convert is None else convert.apply(image)


@functools.lru_cache(maxsize=16)
def _conversion(profile: bytes, mode: str) -> tuple[str, ImageCms.ImageCmsTransform | None]:
  """Returns the profile's colour space and its conversion to sRGB, None if that has no effect.

  Raises:
    ValueError, OSError, ImageCms.PyCMSError: the profile is damaged or is for another colour space.
  """
  opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
  space = opened.profile.xcolor_space
  if mode not in _MODES.get(space, ()):
    raise InvalidValue(f"it describes {space.strip()} colours, but the image is {mode}")
  convert = ImageCms.buildTransform(
    opened,
    ImageCms.createProfile("sRGB"),
    "L" if space == "GRAY" else space.strip(),
    "RGB",
    ImageCms.Intent.RELATIVE_COLORIMETRIC,
    ImageCms.Flags.BLACKPOINTCOMPENSATION,
  )
  return space, None if space == "RGB " and _changes_nothing(convert) else convert


def _changes_nothing(convert: ImageCms.ImageCmsTransform) -> bool:
  """Whether a profile is sRGB up to rounding. Most profiles are; their pixels then stay exact."""
  colours = np.stack(np.meshgrid(_LATTICE, _LATTICE, _LATTICE), axis=-1).reshape(1, -1, 3)
  converted = np.asarray(convert.apply(Image.fromarray(colours)), np.int16)
  return bool(np.abs(converted - colours).max() <= 1)
