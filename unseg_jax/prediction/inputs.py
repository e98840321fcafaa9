"""What a picture is, whatever it is called: its pixels, and an identity that changes with them."""

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

# Of a picture: its size in bytes, and its SHA-256 or the tag that its bucket gave it.
Identity = dict[str, Any]

_KINDS = {
  stat.S_IFDIR: "a folder that cannot be searched",
  stat.S_IFIFO: "a pipe",
  stat.S_IFSOCK: "a socket",
  stat.S_IFCHR: "a device",
  stat.S_IFBLK: "a device",
}


class Picture(NamedTuple):
  """A picture to segment.

  Attributes:
    source: its path or URL.
    target: where its outputs go below the output folder, up to the ending of their names.
    size: of an object in a bucket, in bytes.
    tag: of an object in a bucket, changes with its contents; empty if the bucket has none.
  """

  source: str
  target: str
  size: int = 0
  tag: str = ""


class Unreadable(InvalidValue):
  """A picture that cannot be read; the message names it and says why."""


def fetch(picture: Picture) -> bytes | None:
  """Returns the contents of a picture's object; None: it is a local file.

  Raises:
    Unreadable: it is not there, or may not be read.
    OSError: its store did not answer.
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
  """Reads a picture, as `reading.read_picture` does, and says what it is.

  Args:
    picture: the picture.
    contents: as `fetch` returns them.
    max_pixels: a picture of more is unreadable.

  Raises:
    Unreadable: it is damaged, no picture, not there, or may not be read.
  """
  # Before the pixels are read: what changes in between is made anew next time.
  known = identity(picture, contents)
  try:
    return reading.read_picture(picture.source, contents, max_pixels), known
  except ValueError as error:
    raise Unreadable(str(error)) from error


def identity(picture: Picture, contents: bytes | None = None) -> Identity:
  """Says what a picture is, without its name.

  Args:
    picture: the picture.
    contents: as `fetch` returns them; they are fetched if they are needed.

  Raises:
    Unreadable: it is not there, or may not be read.
    OSError: its store did not answer.
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
    if not stat.S_ISREG(status.st_mode):  # To open a pipe is to wait for who writes into it.
      kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
      raise Unreadable(f"{path} is {kind}; expected a file")
    return {"bytes": status.st_size, "sha256": whole_files.sha256(path)}
  except OSError as error:
    reason = error.strerror or str(error)
    if isinstance(error, FileNotFoundError) and os.path.islink(path):
      reason = f"it is a link to {os.readlink(path)}, which does not exist"
    raise Unreadable(f"{path} cannot be read: {reason}") from error


@functools.lru_cache(maxsize=1024)
def _store(url: str) -> Store:
  """Opens a store once: each time, its bucket is asked for."""
  return open_store(url)


def forget_stores() -> None:
  """Opens stores anew: credentials may have changed since an earlier call."""
  _store.cache_clear()
