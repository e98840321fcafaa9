"""Finds the image files that a user names and reads them in any format."""

import contextlib
import glob
import io
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from unseg_jax.array_types import Bool, UInt8
from unseg_jax.errors import InvalidValue
from unseg_jax.images import conversion, masks
from unseg_jax.images.writing import describe

# Pillow reads HEIC only with a plugin. The suffix is listed nevertheless, so that a photo from a
# phone is reported as unreadable rather than silently skipped.
SUFFIXES = frozenset(
  ".avif .bmp .gif .heic .heif .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff "
  ".webp".split()
)

# The default limit. A decoded image of this size and everything derived from it take several
# gigabytes.
MAX_PIXELS = 180_000_000

_opening = threading.Lock()
_T = TypeVar("_T")


class TooManyPixels(InvalidValue):
  """An image has more pixels than the limit."""


def find_pictures(pattern: str | Path, subfolders: bool = False) -> list[Path]:
  """Finds the image files that a user names.

  Args:
    pattern: a file with any name, a folder for the image files directly in it, or a glob for the
      image files among its matches. `~` is the home directory and `**` matches any folders. Image
      files have a suffix in `SUFFIXES`, in upper or lower case; hidden files are skipped.
    subfolders: whether a folder includes its subfolders at any depth. Hidden folders and links to
      folders are skipped.

  Returns:
    The files, sorted; at least one.

  Raises:
    FileNotFoundError: no image matches.
    OSError: a folder cannot be searched.
  """
  # A file may have a name like a glob, such as `photo[1].jpg`.
  expanded = os.path.expanduser(pattern)
  path = Path(expanded)
  if path.is_file():
    return [path]
  if path.is_dir():
    return _picture_files_below(path) if subfolders else pictures_in(path)
  if files := _only_pictures(map(Path, glob.glob(expanded, recursive=True))):
    return files
  raise FileNotFoundError(
    f"{pattern} is not a file or folder, and as a glob it matches no picture; "
    f"expected one of {_suffixes()}."
  )


def read_picture(
  path: str | Path, contents: bytes | None = None, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "h w 3"]:
  """Reads an image file of any format as 8-bit sRGB.

  The EXIF orientation is applied. Transparent areas become white. The ICC profile converts colours
  to sRGB (`colours.to_srgb`); without a profile, colours are assumed to be sRGB. Channels with more
  than 8 bits are scaled to 8 (for 32 bits and floats see `conversion.deep_scale`). Of an animation,
  only the first frame is read.

  Args:
    path: a file that Pillow can decode; `~` is the home directory.
    contents: the bytes of the file; None reads them from `path`.
    max_pixels: larger images are rejected before they are decoded.

  Returns:
    The image, as converted by `conversion.to_rgb`.

  Raises:
    ValueError: the file is missing, damaged, too large or not an image; the message names it.
  """
  return _decode(
    path, lambda image: conversion.to_rgb(image, str(path)), contents, max_pixels=max_pixels
  )


def as_picture(image: np.ndarray | Image.Image | str | Path) -> UInt8[np.ndarray, "h w 3"]:
  """Returns an image of any common Python type as an array.

  Args:
    image: a file or a Pillow image, converted as in `read_picture`; or an array [H, W, 3] uint8,
      assumed to be upright and sRGB.

  Raises:
    ValueError: the file or image is unreadable, or the array is not an image.
  """
  if isinstance(image, (str, Path)):
    return read_picture(image)
  if isinstance(image, Image.Image):
    name = str(getattr(image, "filename", "")) or "the Pillow image"
    with _naming(name):
      if not image.width * image.height:
        raise InvalidValue("it has no pixels")
      _check_pixels(image, MAX_PIXELS)
      return conversion.to_rgb(image, name)
  array = np.asarray(image)
  if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
    raise InvalidValue(
      f"the picture is {describe(array)}, but uint8 [H, W, 3] with at least one pixel is expected; "
      "give a file or a Pillow image, or convert the array."
    )
  return array


def read_mask(path: str | Path) -> Bool[np.ndarray, "h w"]:
  """Reads a mask at its own resolution: True where a value exceeds half of full scale.

  Full scale is 1 for 1-bit files and for files of any type in which no value exceeds 1.
  JPEG files are an exception, as 1 may be black in them. Otherwise full scale is 255 if no value
  exceeds 255, and 65535 above. Of several channels, the first one that varies counts, with opacity
  last. In a colour cut-out, opacity counts. A palette counts by its colours, not its indices.
  Colour profiles are ignored.

  Args:
    path: a file that Pillow can decode.

  Returns:
    True in the foreground.

  Raises:
    ValueError: the file is missing, damaged or not an image, or its values look like class
      numbers; the message names it.
  """
  return read_mask_levels(path).foreground


def read_mask_levels(path: str | Path) -> masks.Levels:
  """Reads a mask's values and their full scale, as described in `read_mask`."""
  return _decode(path, lambda image: masks.levels(image, str(path)))


@contextlib.contextmanager
def opened(
  source: str | Path | io.BytesIO,
  formats: Sequence[str] | None = None,
  max_pixels: int = MAX_PIXELS,
) -> Iterator[Image.Image]:
  """Opens an image without decoding it.

  Args:
    source: the file or its contents.
    formats: Pillow's names of the accepted formats; None accepts all formats.
    max_pixels: larger images are rejected.

  Raises:
    ValueError: the image has too many pixels.
    PIL.UnidentifiedImageError: the image has none of the formats.
    Exception: the file is damaged; errors of nearly any type occur.
  """
  with _opening:
    # Pillow's own limit is global, and its message does not explain how to raise it.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
      image = Image.open(source, formats=None if formats is None else list(formats))
    finally:
      Image.MAX_IMAGE_PIXELS = limit
  with image:
    _check_pixels(image, max_pixels)
    yield image


def pictures_in(folder: Path) -> list[Path]:
  """Lists the image files directly in a folder, sorted; at least one.

  Raises:
    FileNotFoundError: the folder does not exist or has no image files.
  """
  if not folder.is_dir():
    raise FileNotFoundError(f"the folder {folder} does not exist; expected a folder of pictures.")
  if files := _only_pictures(folder.iterdir()):
    return files
  raise FileNotFoundError(
    f"the folder {folder} has no pictures directly in it; expected files of {_suffixes()}."
  )


def _picture_files_below(folder: Path) -> list[Path]:
  def refuse(error: OSError) -> None:
    raise error

  # By default, os.walk silently skips folders that it cannot read.
  if files := _only_pictures(named_pictures(folder, refuse)):
    return files
  raise FileNotFoundError(
    f"the folder {folder} has no pictures in it or in its subfolders; "
    f"expected files of {_suffixes()}."
  )


def named_pictures(folder: str | Path, refuse: Callable[[OSError], None]) -> list[Path]:
  """Lists all paths with an image suffix in a folder and its subfolders, files or not.

  Args:
    folder: the folder. Hidden subfolders and links to folders are skipped.
    refuse: receives the error of each folder that cannot be read.
  """
  paths: list[Path] = []
  for inside, names, file_names in os.walk(folder, onerror=refuse):
    names[:] = [name for name in names if not name.startswith(".")]
    paths += [Path(inside, name) for name in file_names]
  return [path for path in paths if is_picture(path)]


def is_picture(path: PurePath) -> bool:
  """Whether a path has an image suffix and is not hidden."""
  return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _only_pictures(paths: Iterable[Path]) -> list[Path]:
  return sorted(path for path in set(paths) if is_picture(path) and path.is_file())


def _suffixes() -> str:
  return " ".join(sorted(SUFFIXES))


def _decode(
  path: str | Path,
  convert: Callable[[Image.Image], _T],
  contents: bytes | None = None,
  max_pixels: int = MAX_PIXELS,
) -> _T:
  source = os.path.expanduser(path) if contents is None else io.BytesIO(contents)
  with _naming(path), opened(source, max_pixels=max_pixels) as image:
    return convert(image)


@contextlib.contextmanager
def _naming(path: str | Path) -> Iterator[None]:
  """Turns any error about an image into a ValueError that names the image."""
  try:
    yield
  except TooManyPixels as error:
    raise TooManyPixels(f"{path} {error}") from error
  # Decoders raise errors of nearly every type for damaged files.
  except Exception as error:
    reason = str(error) or type(error).__name__
    # Pillow's message for this error repeats the path and blames the file.
    if isinstance(error, UnidentifiedImageError):
      reason = "its format is unknown"
    if isinstance(error, Image.DecompressionBombError):
      reason = "a part of it claims more pixels than Pillow decodes"
    raise InvalidValue(
      f"{path} cannot be read as a picture: {' '.join(reason.split())}. Expected an undamaged file "
      "that Pillow can decode, such as JPEG, PNG, TIFF or WebP."
    ) from error


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
  width, height = image.size
  if width * height > max_pixels:
    raise TooManyPixels(
      f"has {width:,} x {height:,} pixels, {width * height:,} in all; the limit is {max_pixels:,}, "
      "because larger images may exhaust the memory. Shrink it, or raise the limit: "
      f"`python -m unseg_jax.predict --max_pixels={width * height}`, or "
      f"read_picture(..., max_pixels={width * height}) in Python."
    )
