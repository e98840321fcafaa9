"""Picture files: finding those that a user means, and reading them whatever their format."""

import glob
import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from unseg_jax.array_types import Bool, UInt8

# Pillow reads HEIC only with a plugin. It is listed all the same: a telephone's picture should be
# named as unreadable, not passed over in silence.
SUFFIXES = frozenset(
  ".avif .bmp .gif .heic .heif .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff "
  ".webp".split()
)


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


def read_picture(path: str | Path, contents: bytes | None = None) -> UInt8[np.ndarray, "h w 3"]:
  """Reads a picture of any kind as 8-bit RGB.

  It stands upright (its EXIF orientation is applied), transparent parts show white, 16 bits per
  channel are scaled to 8, floats are taken to be in [0, 1], colours are converted without their
  ICC profile, and of an animation the first frame is read.

  Args:
    path: a file that Pillow can decode.
    contents: what the file holds; None: it is read.

  Returns:
    The picture, as `to_rgb` converts it.

  Raises:
    ValueError: the file is missing, damaged or no picture; the message names it.
  """
  return _decode(path, to_rgb, contents)


def read_mask(path: str | Path) -> Bool[np.ndarray, "h w"]:
  """Reads a mask at its own resolution: True where the first channel exceeds half of full scale.

  Full scale is 255 for 8 bits and 65535 for 16. In a palette the colour decides, not its index;
  opacity is ignored. A mask that holds 0 and 1 out of 255 is therefore all background.

  Args:
    path: a file that Pillow can decode.

  Returns:
    True in the foreground.

  Raises:
    ValueError: the file is missing, damaged or no picture; the message names it.
  """
  return _decode(path, to_mask)


def to_rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
  """Converts any picture to 8-bit RGB, as `read_picture` says."""
  deep = _deep(image)
  if deep is not None:
    return np.repeat(np.rint(deep * 255).astype(np.uint8)[..., None], 3, axis=2)
  if image.has_transparency_data:
    image = image.convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
  return np.array(image.convert("RGB"))


def to_mask(image: Image.Image) -> Bool[np.ndarray, "h w"]:
  """Converts a picture to a mask, as `read_mask` says."""
  deep = _deep(image)
  if deep is not None:
    return deep > 0.5
  # By way of RGBA, a palette becomes colours while those of transparent pixels are kept.
  image = image.convert("RGBA" if image.has_transparency_data else "RGB")
  return np.array(image.getchannel(0)) > 127.5


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
  convert: Callable[[Image.Image], np.ndarray],
  contents: bytes | None = None,
) -> np.ndarray:
  file = os.path.expanduser(path) if contents is None else io.BytesIO(contents)
  try:
    with Image.open(file) as image:
      return convert(ImageOps.exif_transpose(image))
  # Given damaged files, decoders raise errors of nearly every type.
  except Exception as error:
    # Pillow's own words for this repeat the path.
    unknown = isinstance(error, UnidentifiedImageError)
    reason = "its format is not known" if unknown else str(error) or type(error).__name__
    raise ValueError(
      f"{path} cannot be read as a picture: {reason}. Expected an undamaged file that Pillow "
      "can decode, such as JPEG, PNG, TIFF or WebP."
    ) from error


def _deep(image: Image.Image) -> np.ndarray | None:
  """Returns a grey picture of more than 8 bits as float64 [H, W] in [0, 1]; None for others."""
  if not image.mode.startswith(("I", "F")):
    return None
  # Pillow uses its 32-bit mode "I" for some 16-bit files, such as PGM.
  full_scale = 1.0 if image.mode == "F" else 65535.0
  values = np.array(image, np.float64) / full_scale
  # NaN fails both comparisons.
  if not ((values >= 0) & (values <= 1)).all():
    raise ValueError(
      f"its values are not all within 0 to {full_scale:g}; save it with 8 or 16 bits per channel"
    )
  return values
