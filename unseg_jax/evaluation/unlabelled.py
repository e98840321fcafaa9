"""Unlabelled images for adaptation, from files or a prepared TFDS data set."""

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterator

import numpy as np

from unseg_jax.array_types import UInt8
from unseg_jax.errors import InvalidValue
from unseg_jax.evaluation import tfds_source
from unseg_jax.images import reading
from unseg_jax.storage import places

TFDS = "tfds:"


@dataclasses.dataclass(frozen=True)
class Pictures:
  """Unlabelled images in a fixed order.

  Attributes:
    count: the number of images.
    read: yields the images from one index up to another.
    identity: changes with the images, but not with their location.
  """

  count: int
  read: Callable[[int, int], Iterator[UInt8[np.ndarray, "_ _ 3"]]]
  identity: str


def open_pictures(images: str, data_root: str) -> Pictures:
  """Opens the images that `config.adapt.images` names.

  Args:
    images: a file, a folder (including subfolders), their URLs, a glob, or `tfds:NAME:SPLIT:KEY`.
    data_root: the folder of prepared TFDS data sets; "" selects TFDS's default.

  Raises:
    FileNotFoundError: no image matches, or the TFDS split is empty.
    ValueError: the TFDS data set, the split or the key does not exist. While reading: an image
      cannot be decoded; the message names it.
  """
  if not images.startswith(TFDS):
    return _of_files(images)
  match = re.fullmatch(r"([^\[]+):([\w+]+(?:\[[^\]]*\])?):([^:]+)", images.removeprefix(TFDS))
  if match is None:
    raise InvalidValue(
      f"config.adapt.images={images}: expected tfds:NAME:SPLIT:KEY, such as "
      "tfds:oxford_iiit_pet:train:image"
    )
  name, split, key = match.groups()
  data_dir = places.local(data_root) if data_root else None
  count, read = tfds_source.open_pictures(name, split, key, data_dir)
  if not count:
    raise FileNotFoundError(f"config.adapt.images={images}: the split is empty")
  return Pictures(count, read, f"{images} {count}")


def _of_files(pattern: str) -> Pictures:
  try:
    files = reading.find_pictures(places.local(pattern), subfolders=True)
  except FileNotFoundError as error:
    raise FileNotFoundError(f"config.adapt.images: {error}") from error

  def read(start: int, stop: int) -> Iterator[np.ndarray]:
    return map(reading.read_picture, files[start:stop])

  # Sizes stand in for contents, because reading all images at every start would take too long.
  listed = "\n".join(f"{path.name} {path.stat().st_size}" for path in files)
  return Pictures(len(files), read, hashlib.sha256(listed.encode()).hexdigest())
