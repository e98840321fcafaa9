"""Colours that a picture's own profile describes (ICC.1), as sRGB."""

import functools
import io
import logging

import numpy as np
from PIL import Image, ImageCms

from unseg_jax.errors import InvalidValue

log = logging.getLogger(__name__)

# The modes of pictures that a profile's colour space may describe.
_MODES = {"GRAY": ("L",), "RGB ": ("RGB", "L"), "CMYK": ("CMYK",)}
_LATTICE = np.linspace(0, 255, 9).round().astype(np.uint8)


def to_srgb(image: Image.Image, profile: bytes | None, name: str) -> Image.Image:
  """Converts a picture to RGB whose numbers are sRGB's.

  A profile is applied by Little CMS, relative to white and with black point compensation; colours
  that sRGB does not have become its nearest. Where the profile is damaged or describes another
  kind of colours, a warning is logged, and the picture is taken to be without one.

  Args:
    image: a picture of mode L, RGB or CMYK.
    profile: of its colours; None: grey and RGB are sRGB's, CMYK is converted without regard to ink.
    name: of the picture, for the warning.
  """
  if not profile:
    return image.convert("RGB")
  try:
    space, convert = _conversion(profile, image.mode)
  # Little CMS says what is wrong by errors of several types.
  except Exception as error:
    reason = " ".join(str(error).split())
    log.warning("%s: its colour profile is left out, as it cannot be used: %s", name, reason)
    return image.convert("RGB")
  image = image.convert("RGB") if space == "RGB " else image
  return image.convert("RGB") if convert is None else convert.apply(image)


@functools.lru_cache(maxsize=16)
def _conversion(profile: bytes, mode: str) -> tuple[str, ImageCms.ImageCmsTransform | None]:
  """The profile's colour space, and its conversion to sRGB; None if that changes nothing.

  Raises:
    ValueError, OSError, ImageCms.PyCMSError: the profile is damaged or of other colours.
  """
  opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
  space = opened.profile.xcolor_space
  if mode not in _MODES.get(space, ()):
    raise InvalidValue(f"it describes {space.strip()} colours, and the picture is {mode}")
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
  """Whether a profile is sRGB itself, up to rounding: most are, and pixels then stay exact."""
  colours = np.stack(np.meshgrid(_LATTICE, _LATTICE, _LATTICE), axis=-1).reshape(1, -1, 3)
  converted = np.asarray(convert.apply(Image.fromarray(colours)), np.int16)
  return bool(np.abs(converted - colours).max() <= 1)
