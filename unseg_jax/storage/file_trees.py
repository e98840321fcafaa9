"""Folders of many files, on a disk or in a bucket, that come and go one by one.

Unlike `places`, which keeps a local copy of all that a place holds, nothing is kept here.
"""

import dataclasses
import os
import tempfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from unseg_jax.storage import places, whole_files
from unseg_jax.storage.stores import Store, open_store


@dataclasses.dataclass(frozen=True)
class FileTree:
  """A folder, which need not be there yet, and all below it.

  Attributes:
    place: a local folder, or a store.
  """

  place: Path | Store

  @classmethod
  def open(cls, place: str | os.PathLike) -> "FileTree":
    """Opens a local path or a URL.

    Raises:
      NotADirectoryError: the path is a file.
      ValueError, ImportError, FileNotFoundError, PermissionError: see `stores.open_store`.
    """
    if places.is_url(place):
      return cls(open_store(str(place)))
    folder = Path(os.path.expanduser(place))
    if folder.exists() and not folder.is_dir():
      raise NotADirectoryError(f"{place} is a file; expected a folder, or a new name.")
    return cls(folder)

  @property
  def is_local(self) -> bool:
    """Whether it is on a disk of this machine."""
    return isinstance(self.place, Path)

  def names(self, folder: str = "") -> set[str]:
    """Lists all files below a folder of it, as `folder/name`."""
    if not self.is_local:
      return set(self.place.list(folder))
    return {
      (PurePosixPath(Path(inside).relative_to(self.place)) / name).as_posix()
      for inside, _, names in os.walk(self.place / folder)
      for name in names
    }

  def has(self, name: str) -> bool:
    """Whether a file is there."""
    return (self.place / name).exists() if self.is_local else self.place.entry(name) is not None

  def there(self, names: Collection[str]) -> set[str]:
    """Says which of these many files are there, of a store by one listing of all that it holds."""
    if self.is_local:
      return {name for name in names if self.has(name)}
    return self.names() & set(names)

  def where(self, name: str) -> str:
    """The path or the URL of a file."""
    return str(self.place / name) if self.is_local else f"{self.place.url}/{name}"

  def read(self, name: str) -> bytes:
    """The contents of a file; raises a FileNotFoundError if there is none."""
    return (self.place / name).read_bytes() if self.is_local else self.place.read(name)

  def write(self, name: str, contents: bytes) -> None:
    """Writes a file that is there whole or not at all."""
    if self.is_local:
      return whole_files.write_bytes(self.place / name, contents)
    with tempfile.NamedTemporaryFile() as file:
      file.write(contents)
      file.flush()
      self.place.upload(Path(file.name), name)

  def remove(self, name: str) -> None:
    """Removes a file, if it is there; so goes a folder of which it was the last, as in a bucket."""
    if not self.is_local:
      return self.place.remove(name)
    path = self.place / name
    path.unlink(missing_ok=True)
    if path.parent != self.place and path.parent.is_dir() and not any(path.parent.iterdir()):
      path.parent.rmdir()
