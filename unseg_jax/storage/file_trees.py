"""Folders on a disk or in a bucket whose files are read and written one by one.

Unlike `places`, this module keeps no local copy.
"""

import dataclasses
import os
import tempfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from unseg_jax.storage import places, whole_files
from unseg_jax.storage.stores import Store, open_store


@dataclasses.dataclass(frozen=True)
class LocalTree:
  """A local folder with its subfolders. It need not exist yet.

  Attributes:
    folder: its path.
  """

  folder: Path

  def names(self, folder: str = "") -> set[str]:
    """Lists all files below a subfolder, as `folder/name`."""
    return {
      (PurePosixPath(Path(parent).relative_to(self.folder)) / name).as_posix()
      for parent, _, names in os.walk(self.folder / folder)
      for name in names
    }

  def has(self, name: str) -> bool:
    """Whether a file exists."""
    return os.path.exists(self.folder / name)  # `Path.exists` raises an error for too long names.

  def existing(self, names: Collection[str]) -> set[str]:
    """Returns the names that exist."""
    return {name for name in names if self.has(name)}

  def ignores_case(self) -> bool:
    """Whether the file system treats names that differ only in case as the same file."""
    existing = next(
      path for path in [self.folder.absolute(), *self.folder.absolute().parents] if path.exists()
    )
    for path in [existing, *existing.parents]:
      other = path.with_name(path.name.swapcase()) if path.name else path
      if other != path:
        return other.exists() and other.samefile(path)
    return False

  def where(self, name: str) -> str:
    """Returns the path of a file."""
    return str(self.folder / name)

  def read(self, name: str) -> bytes:
    """Returns the contents of a file; raises a FileNotFoundError if it does not exist."""
    return (self.folder / name).read_bytes()

  def write(self, name: str, contents: bytes) -> None:
    """Writes a file atomically."""
    whole_files.write_bytes(self.folder / name, contents)

  def remove(self, name: str) -> None:
    """Removes a file if it exists. Also removes its folder once empty, as in a bucket."""
    path = self.folder / name
    path.unlink(missing_ok=True)
    if path.parent != self.folder and path.parent.is_dir() and not any(path.parent.iterdir()):
      path.parent.rmdir()


@dataclasses.dataclass(frozen=True)
class StoreTree:
  """A folder of a bucket, with the same methods as `LocalTree`.

  Attributes:
    store: the folder's objects.
  """

  store: Store

  def names(self, folder: str = "") -> set[str]:
    """Lists all objects below a subfolder, as `folder/name`."""
    return set(self.store.list(folder))

  def has(self, name: str) -> bool:
    """Whether an object exists."""
    return self.store.entry(name) is not None

  def existing(self, names: Collection[str]) -> set[str]:
    """Returns the names that exist, by one listing of the folder."""
    return self.names() & set(names)

  def ignores_case(self) -> bool:
    """Always False: names in a store are case-sensitive."""
    return False

  def where(self, name: str) -> str:
    """Returns the URL of an object."""
    return f"{self.store.url}/{name}"

  def read(self, name: str) -> bytes:
    """Returns the contents of an object; raises a FileNotFoundError if it does not exist."""
    return self.store.read(name)

  def write(self, name: str, contents: bytes) -> None:
    """Writes an object atomically."""
    self.store.check_name(name)
    with tempfile.NamedTemporaryFile() as file:
      file.write(contents)
      file.flush()
      self.store.upload(Path(file.name), name)

  def remove(self, name: str) -> None:
    """Removes an object if it exists."""
    self.store.remove(name)


FileTree = LocalTree | StoreTree


def open_tree(place: str | os.PathLike) -> FileTree:
  """Opens a local path or a URL.

  Raises:
    NotADirectoryError: the path is a file.
    ValueError, ImportError, FileNotFoundError, PermissionError: see `stores.open_store`.
  """
  if places.is_url(place):
    return StoreTree(open_store(str(place)))
  folder = places.path(place)
  if folder.exists() and not folder.is_dir():
    raise NotADirectoryError(f"{place} is a file; expected a folder, or a new name.")
  return LocalTree(folder)
