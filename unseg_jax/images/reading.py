"""Picture files: finding those that a user means, and reading them whatever their format."""

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

# Pillow reads HEIC only with a plugin. It is listed all the same: a telephone's picture should be
# named as unreadable, not passed over in silence.
SUFFIXES = frozenset(
  ".avif .bmp .gif .heic .heif .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff "
  ".webp".split()
)

# A picture of more is refused unless the caller says otherwise: decoded, and with all that is made
# of it, one of so many takes several gigabytes.
MAX_PIXELS = 180_000_000

_opening = threading.Lock()
_T = TypeVar("_T")


class TooManyPixels(InvalidValue):
  """A picture exceeds the limit of pixels."""


def find_pictures(pattern: str | Path, subfolders: bool = False) -> list[Path]:
  """Finds the pictures that a user means.

  Args:
    pattern: a file, whatever its name; or a folder, for the picture files directly in it; or a
      glob, for the picture files among its matches. `~` is the home directory, `**` any folders.
      Picture files are those whose suffix is in `SUFFIXES`, in either case; hidden ones are left
      out.
    subfolders: whether a folder also stands for the folders inside it, at any depth. Hidden ones
      and links to folders are left out.

  Returns:
    The files, sorted; at least one.

  Raises:
    FileNotFoundError: no picture matches.
    OSError: a folder cannot be searched.
  """
  # A name such as `photo[1].jpg` is a file before it is a glob.
  expanded = os.path.expanduser(pattern)
  path = Path(expanded)
  if path.is_file():
    return [path]
  if path.is_dir():
    return _picture_files_below(path) if subfolders else pictures_in(path)
  if files := _only_pictures(map(Path, glob.glob(expanded, recursive=True))):
    return files
  raise FileNotFoundError(
    f"{pattern} is no file or folder, and as a glob it matches no picture; "
    f"expected one of {_suffixes()}."
  )


def read_picture(
  path: str | Path, contents: bytes | None = None, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "h w 3"]:
  """Reads a picture of any kind as 8-bit sRGB.

  It stands upright (its EXIF orientation is applied), and transparent parts show white. Colours are
  converted to sRGB by the picture's ICC profile (`colours.to_srgb`); without one, they are taken to
  be sRGB. More than 8 bits per channel are scaled to 8 (`conversion.deep_scale` says how, for 32
  bits and floats). Of an animation the first frame is read.

  Args:
    path: a file that Pillow can decode; `~` is the home directory.
    contents: what the file holds; None: it is read.
    max_pixels: of more pixels than this, the picture is refused before it is decoded.

  Returns:
    The picture, as `conversion.to_rgb` converts it.

  Raises:
    ValueError: the file is missing, damaged, too large or no picture; the message names it.
  """
  return _decode(
    path, lambda image: conversion.to_rgb(image, str(path)), contents, max_pixels=max_pixels
  )


def as_picture(image: np.ndarray | Image.Image | str | Path) -> UInt8[np.ndarray, "h w 3"]:
  """Returns a picture in any of the forms in which Python has them.

  Args:
    image: a file, or a Pillow image, which are both read as `read_picture` says; or an array
      [H, W, 3] uint8, taken to be upright and sRGB.

  Raises:
    ValueError: the file or the image cannot be read as a picture, or the array is none.
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

  Full scale is what the file plainly says: 1 for two levels, and where no value exceeds 1, in
  whatever type (a JPEG file excepted, where 1 may be black); else 255 where none exceeds that; else
  65535. Of several channels the first counts; one that is the same everywhere leaves it to the
  next, opacity being the last; of a cut-out in colour the opacity counts. In a palette the colour
  decides, not its index. Colour profiles are left out.

  Args:
    path: a file that Pillow can decode.

  Returns:
    True in the foreground.

  Raises:
    ValueError: the file is missing, damaged or no picture, or its values look like numbers of
      classes; the message names it.
  """
  return read_mask_levels(path).foreground


def read_mask_levels(path: str | Path) -> masks.Levels:
  """Reads a mask's values and their full scale; see `read_mask`."""
  return _decode(path, lambda image: masks.levels(image, str(path)))


@contextlib.contextmanager
def opened(
  source: str | Path | io.BytesIO,
  formats: Sequence[str] | None = None,
  max_pixels: int = MAX_PIXELS,
) -> Iterator[Image.Image]:
  """Opens a picture without decoding it.

  Args:
    source: the file, or what it holds.
    formats: Pillow's names of those to take; None: all that it knows.
    max_pixels: of more pixels than this, the picture is refused.

  Raises:
    ValueError: the picture has too many pixels.
    PIL.UnidentifiedImageError: it has none of these formats.
    Exception: of nearly any type, if the file is damaged.
  """
  with _opening:
    # Pillow's own limit is one for all, and its message does not say how to raise it.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
      image = Image.open(source, formats=None if formats is None else list(formats))
    finally:
      Image.MAX_IMAGE_PIXELS = limit
  with image:
    _check_pixels(image, max_pixels)
    yield image


def pictures_in(folder: Path) -> list[Path]:
  """Lists the picture files directly in a folder, sorted; at least one.

  Raises:
    FileNotFoundError: the folder does not exist, or it has no picture.
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

  # By default, folders that cannot be read would be passed over in silence.
  if files := _only_pictures(named_pictures(folder, refuse)):
    return files
  raise FileNotFoundError(
    f"the folder {folder} has no pictures in it or in folders inside; "
    f"expected files of {_suffixes()}."
  )


def named_pictures(folder: str | Path, refuse: Callable[[OSError], None]) -> list[Path]:
  """Lists what has the name of a picture in a folder and those inside, be it a file or not.

  Args:
    folder: hidden folders in it, and links to folders, are left out.
    refuse: is called with the error of each folder that cannot be searched.
  """
  paths: list[Path] = []
  for inside, names, file_names in os.walk(folder, onerror=refuse):
    names[:] = [name for name in names if not name.startswith(".")]
    paths += [Path(inside, name) for name in file_names]
  return [path for path in paths if is_picture(path)]


def is_picture(path: PurePath) -> bool:
  """Whether a name is that of a picture that is not hidden."""
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
  """Turns whatever goes wrong with a picture into a ValueError that names it."""
  try:
    yield
  except TooManyPixels as error:
    raise TooManyPixels(f"{path} {error}") from error
  # Given damaged files, decoders raise errors of nearly every type.
  except Exception as error:
    reason = str(error) or type(error).__name__
    # Pillow's own words for this repeat the path, and blame the file.
    if isinstance(error, UnidentifiedImageError):
      reason = "its format is not known"
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
      "as more may exhaust the memory. Shrink it, or raise the limit: "
      f"`python -m unseg_jax.predict --max_pixels={width * height}`, or "
      f"read_picture(..., max_pixels={width * height}) in Python."
    )
