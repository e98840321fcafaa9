"""Images with masks from two folders, paired by file name."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from unseg_jax.array_types import Bool, UInt8
from unseg_jax.errors import InvalidValue
from unseg_jax.evaluation.source import Example, Source, check_same_size
from unseg_jax.images import reading
from unseg_jax.storage import places

NAMED_IN_ERRORS = 5
CHECKED_MASKS = (
  16  # Number of masks, spread over the data set, that are checked before work starts.
)


def open_pairs(images: str | Path, masks: str | Path) -> Source:
  """Opens two folders whose files, or whose subfolders' files, pair by stem.

  Args:
    images: a folder of images or its URL. Alternatively it holds only subfolders of images, such as
      one per bird species.
    masks: masks of the images' sizes, in folders of the same names.

  Returns:
    The pairs. Their names are the image stems, prefixed with the subfolder's name, if any.

  Raises:
    FileNotFoundError: a folder is missing or empty.
    ValueError: files are unpaired, a checked mask is unreadable, or the masks are all background or
      all foreground. While reading the pairs: a file is unreadable, or a mask and its image differ
      in size.
  """
  images, masks = places.local(images), places.local(masks)
  pairs = [
    (str(image.relative_to(images).with_suffix("")), image, mask)
    for inner in _inner_folders(images, masks)
    for image, mask in paired(images / inner, masks / inner)
  ]
  _check_two_sides([mask for _, _, mask in pairs], masks)

  def read(first: int, step: int) -> Iterator[Example]:
    for name, image, mask in pairs[first::step]:
      yield name, *read_pair(image, mask)

  return Source(len(pairs), read)


def paired(images_folder: str | Path, masks_folder: str | Path) -> list[tuple[Path, Path]]:
  """Pairs the images of one folder with the masks of another by stem.

  Args:
    images_folder: holds the images, such as `cat.jpg`; subfolders are not searched.
    masks_folder: holds one mask per image, such as `cat.png`.

  Returns:
    (image, mask) for each stem, in the order of the stems.

  Raises:
    FileNotFoundError: a folder is missing or has no image files.
    ValueError: two files in a folder have the same stem, or a file has no partner.
  """
  images, masks = (_by_stem(places.path(folder)) for folder in (images_folder, masks_folder))
  problems = [
    f"{_names(unpaired)} of {folder} without a partner in {other}"
    for folder, other, unpaired in (
      (images_folder, masks_folder, images.keys() - masks.keys()),
      (masks_folder, images_folder, masks.keys() - images.keys()),
    )
    if unpaired
  ]
  if problems:
    raise InvalidValue(
      f"pictures and masks do not pair up by stem: {'; '.join(problems)}. Every picture NAME.* "
      "needs exactly one mask NAME.*; add, rename or remove files."
    )
  return [(images[stem], masks[stem]) for stem in sorted(images)]


def read_pair(
  image_path: str | Path, mask_path: str | Path
) -> tuple[UInt8[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
  """Reads an image with `read_picture` and its mask with `read_mask`.

  Args:
    image_path: the image.
    mask_path: its mask, of the same size.

  Returns:
    The image in RGB, and the mask, True in the foreground.

  Raises:
    ValueError: a file is missing, damaged or not an image, or the sizes differ.
  """
  image, mask = reading.read_picture(image_path), reading.read_mask(mask_path)
  check_same_size(image, mask, image_path, mask_path)
  return image, mask


def _check_two_sides(paths: Sequence[Path], folder: Path) -> None:
  """Reads masks until both foreground and background occur; raises a ValueError otherwise."""
  few = paths[:: -(-len(paths) // CHECKED_MASKS)]
  # Every sampled mask is read, because some masks may hold class numbers.
  seen = {side for path in few for side in np.unique(reading.read_mask(path)).tolist()}
  if len(seen) == 2:
    return
  lowest, highest, full_scale = np.inf, -np.inf, 0.0
  for path in paths:
    levels = reading.read_mask_levels(path)
    seen |= set(np.unique(levels.foreground).tolist())
    if len(seen) == 2:
      return
    lowest, highest = min(lowest, levels.values.min()), max(highest, levels.values.max())
    full_scale = max(full_scale, levels.full_scale)
  side = "foreground" if True in seen else "background"
  raise InvalidValue(
    f"the {len(paths)} masks in {folder} are all {side}: their values span {lowest:g} to "
    f"{highest:g}, and foreground is any value that exceeds {full_scale / 2:g}. Save them with "
    "foreground and background as 255 and 0, or as 1 and 0."
  )


def _inner_folders(images: Path, masks: Path) -> list[str]:
  """Returns the names of the subfolders to pair, or "" if the files are directly in the folders."""
  inner: set[str] = set()
  for outer in (images, masks):
    paths = list(outer.iterdir()) if outer.is_dir() else []
    if any(path.is_file() and path.suffix.lower() in reading.SUFFIXES for path in paths):
      return [""]
    inner |= {path.name for path in paths if path.is_dir() and not path.name.startswith(".")}
  return sorted(inner) or [""]


def _by_stem(folder: Path) -> dict[str, Path]:
  files = reading.pictures_in(folder)
  by_stem = {path.stem: path for path in files}
  if len(by_stem) < len(files):
    twice = [path.name for path in files if by_stem[path.stem] != path]
    both = [by_stem[Path(name).stem].name for name in twice]
    raise InvalidValue(
      f"{folder} has files that differ only in their suffix: {_names(twice + both)}. Files are "
      "paired by stem, so each may occur once; rename or remove one."
    )
  return by_stem


def _names(names: Iterable[str]) -> str:
  names = sorted(names)
  more = len(names) - NAMED_IN_ERRORS
  return ", ".join(names[:NAMED_IN_ERRORS]) + (f" and {more} more" if more > 0 else "")
