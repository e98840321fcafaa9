"""Pictures without masks, for the adaptation: files, or a prepared TFDS data set."""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from unseg_jax.evaluation import tfds_source
from unseg_jax.images import reading
from unseg_jax.storage import places

TFDS = "tfds:"


class Pictures(NamedTuple):
  """Pictures in an order that stays.

  Attributes:
    count: how many there are.
    read: yields those from one number up to another, `[H, W, 3]` uint8.
    identity: changes with the pictures, not with where they lie.
  """

  count: int
  read: Callable[[int, int], Iterator[np.ndarray]]
  identity: str


def open_pictures(images: str, data_root: str) -> Pictures:
  """Opens the pictures that `config.adapt.images` names.

  Args:
    images: a file, a folder (with those inside), their URLs, a glob, or `tfds:NAME:SPLIT:KEY`.
    data_root: the folder of prepared TFDS data sets; "": TFDS's own choice.

  Raises:
    FileNotFoundError: there are no pictures.
    ValueError: there is no such TFDS data set, split or key. While pictures are read: one cannot
      be decoded; the message names it.
  """
  if not images.startswith(TFDS):
    return _of_files(images)
  parts = re.fullmatch(r"([^\[]+):([\w+]+(?:\[[^\]]*\])?):([^:]+)", images.removeprefix(TFDS))
  if parts is None:
    raise ValueError(
      f"config.adapt.images={images}: expected tfds:NAME:SPLIT:KEY, such as "
      "tfds:oxford_iiit_pet:train:image"
    )
  count, read = tfds_source.open_pictures(
    *parts.groups(), data_dir=places.local(data_root) if data_root else None
  )
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

  # Sizes stand for contents: to read every picture at every start would take too long.
  listed = "\n".join(f"{path.name} {path.stat().st_size}" for path in files)
  return Pictures(len(files), read, hashlib.sha256(listed.encode()).hexdigest())
