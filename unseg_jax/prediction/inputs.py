"""Input images: their pixels, and an identity that depends on the contents, not on the name."""

import functools
import hashlib
import os
import stat
from typing import Any, NamedTuple

import numpy as np

from unseg_jax.array_types import UInt8
from unseg_jax.errors import InvalidValue
from unseg_jax.images import reading
from unseg_jax.storage import places, whole_files
from unseg_jax.storage.stores import Store, open_store

# An image's size in bytes, and its SHA-256 or the tag that its bucket assigned.
Identity = dict[str, Any]

_KINDS = {
  stat.S_IFDIR: "a folder that cannot be searched",
  stat.S_IFIFO: "a pipe",
  stat.S_IFSOCK: "a socket",
  stat.S_IFCHR: "a device",
  stat.S_IFBLK: "a device",
}


class Picture(NamedTuple):
  """An image to segment.

  Attributes:
    source: its path or URL.
    target: the path of its outputs within the output folder, without the ending of their names.
    size: for an object in a bucket: its size in bytes.
    tag: for an object in a bucket: a tag that changes with its contents, or "" if it has none.
  """

  source: str
  target: str
  size: int = 0
  tag: str = ""


class Unreadable(InvalidValue):
  """An image cannot be read; the message names it and gives the reason."""


def fetch(picture: Picture) -> bytes | None:
  """Returns the contents of an image in a bucket, or None for a local file.

  Raises:
    Unreadable: the object does not exist, or access is denied.
    OSError: the store did not respond.
  """
  if not places.is_url(picture.source):
    return None
  folder, _, name = picture.source.rpartition("/")
  try:
    return _store(folder).read(name)
  except (FileNotFoundError, PermissionError) as error:
    raise Unreadable(str(error)) from error


def read(
  picture: Picture, contents: bytes | None, max_pixels: int = reading.MAX_PIXELS
) -> tuple[UInt8[np.ndarray, "h w 3"], Identity]:
  """Reads an image with `reading.read_picture`; returns its pixels and its identity.

  Args:
    picture: the image.
    contents: its contents, as `fetch` returns them.
    max_pixels: an image with more pixels is unreadable.

  Raises:
    Unreadable: the file is damaged, not an image, missing, or access is denied.
  """
  # Taken before the pixels are read: an image that changes in between is redone by the next run.
  known = identity(picture, contents)
  try:
    return reading.read_picture(picture.source, contents, max_pixels), known
  except ValueError as error:
    raise Unreadable(str(error)) from error


def identity(picture: Picture, contents: bytes | None = None) -> Identity:
  """Returns the identity of an image, which does not depend on its name.

  Args:
    picture: the image.
    contents: its contents, as `fetch` returns them. If None, they are fetched when needed.

  Raises:
    Unreadable: the image does not exist, or access is denied.
    OSError: the store did not respond.
  """
  if not places.is_url(picture.source):
    return _of_file(picture.source)
  if picture.tag:
    return {"bytes": picture.size, "tag": picture.tag}
  contents = contents or fetch(picture) or b""
  return {"bytes": len(contents), "sha256": hashlib.sha256(contents).hexdigest()}


def _of_file(path: str) -> Identity:
  try:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # Opening a pipe would block.
      kind = _KINDS.get(stat.S_IFMT(status.st_mode), "not a regular file")
      raise Unreadable(f"{path} is {kind}; expected a file")
    return {"bytes": status.st_size, "sha256": whole_files.sha256(path)}
  except OSError as error:
    reason = error.strerror or str(error)
    if isinstance(error, FileNotFoundError) and os.path.islink(path):
      reason = f"it is a link to {os.readlink(path)}, which does not exist"
    raise Unreadable(f"{path} cannot be read: {reason}") from error


@functools.lru_cache(maxsize=1024)
def _store(url: str) -> Store:
  """Opens a store and caches it, since each opening requests the bucket."""
  return open_store(url)


def forget_stores() -> None:
  """Clears the cache of open stores: credentials may have changed since an earlier call."""
  _store.cache_clear()
