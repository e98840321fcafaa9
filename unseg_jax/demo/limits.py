"""What the page takes: pictures of known formats and of some size, judged before decoding."""

import sys
from pathlib import Path

import numpy as np
from PIL import UnidentifiedImageError

from unseg_jax.array_types import UInt8
from unseg_jax.errors import InvalidValue
from unseg_jax.images import reading

MEGABYTES = 25
MEGAPIXELS = 25  # Decoded, with all that is drawn of them, such pictures take up about a gigabyte.
# Those that decode within this process, to pixels; Pillow hands others to programs, or draws them.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


def read_upload(path: str | Path) -> UInt8[np.ndarray, "h w 3"]:
  """Reads a picture that somebody sent, as `images.reading.read_picture` does.

  Args:
    path: the file. Messages have its name, but not its folder.

  Raises:
    ValueError: the file is deleted already, is no picture, is damaged, or has too many pixels;
      those are counted before they are decoded.
  """
  name = Path(path).name
  if not Path(path).exists():
    raise InvalidValue(
      f"{name} is no longer here: uploads are deleted after a while. Send it again."
    )
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
      f"{name} is no picture that this page can read. Expected {', '.join(FORMATS)}; a name that "
      "ends in .png does not make a file one."
    ) from error
  # Given damaged files, decoders raise errors of nearly every type.
  except Exception as error:
    raise InvalidValue(f"{name} is damaged: {error}. Save it again, and send that.") from error
  if width * height > MEGAPIXELS * 10**6:
    raise InvalidValue(
      f"{name} has {width:,} x {height:,} pixels; this page takes at most {MEGAPIXELS} million. "
      "Shrink it, or segment it with `python -m unseg_jax.predict`."
    )
