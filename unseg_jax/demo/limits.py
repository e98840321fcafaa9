"""The limits for uploaded images: format, bytes and pixels, checked before decoding."""

import sys
from pathlib import Path

import numpy as np
from PIL import UnidentifiedImageError

from unseg_jax.array_types import UInt8
from unseg_jax.errors import InvalidValue
from unseg_jax.images import reading

MEGABYTES = 25
MEGAPIXELS = 25  # Such an image, decoded and with its views, takes about a gigabyte.
# Raster formats that this process decodes. Pillow passes other formats to external programs.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


def read_upload(path: str | Path) -> UInt8[np.ndarray, "h w 3"]:
  """Reads an uploaded image in the way of `images.reading.read_picture`.

  Args:
    path: the file. Error messages contain its name without its folder.

  Raises:
    ValueError: the file was deleted, is not an image or is damaged, or has too many pixels, which
      are counted before decoding.
  """
  name = Path(path).name
  if not Path(path).exists():
    raise InvalidValue(f"{name} was deleted: uploads are kept for ten minutes. Upload it again.")
  _check_pixels(path, name)
  try:
    return reading.read_picture(path)
  except ValueError as error:
    raise InvalidValue(str(error).replace(str(path), name)) from error


def _check_pixels(path: str | Path, name: str) -> None:
  try:
    with reading.opened(path, FORMATS, sys.maxsize) as image:
      width, height = image.size
  except UnidentifiedImageError as error:
    raise InvalidValue(
      f"{name} is not an image that this page can read. Expected one of {', '.join(FORMATS)}; the "
      "file's contents count, not its suffix."
    ) from error
  # Decoders raise errors of nearly every type for damaged files.
  except Exception as error:
    raise InvalidValue(
      f"{name} is damaged: {error}. Save the image again, and upload the new file."
    ) from error
  if width * height > MEGAPIXELS * 10**6:
    raise InvalidValue(
      f"{name} has {width:,} x {height:,} pixels; this page accepts at most {MEGAPIXELS} million. "
      "Shrink the image, or segment it with `python -m unseg_jax.predict`."
    )
