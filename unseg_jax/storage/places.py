"""Remote folders ("places"), such as a bucket's, used through a local copy.

Wherever a path is accepted, a URL that fsspec opens (`gs://`, `s3://`, ...) is accepted too. Since
libraries read and write local files, each place has a local copy in the cache folder. `local`
updates the copy and returns it, `publish` uploads one of its files, and `pull` downloads what other
processes have uploaded since. These functions ignore files outside such copies.

Objects are written atomically. For a folder that is valid only when complete, such as a checkpoint,
the object `MARKER` is uploaded last; without it the folder is ignored.
"""

import atexit
import concurrent.futures
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from unseg_jax.storage.cache import cache_folder
from unseg_jax.storage.stores import Entry, Store, open_store

MARKER = "commit_success.txt"  # orbax marks checkpoints in buckets with the same name.
TRANSFERS = 8  # Concurrent transfers.

# Shards are large and a process may read only some of them, so they are downloaded on demand.
_LARGE = re.compile(r".*\.array_record-\d+$")
_ONLY_WRITTEN = re.compile(r"(.*/)?events/")
_TEMPORARY = re.compile(r".*(\.incomplete$|\.orbax-checkpoint-tmp)")
_STEP = re.compile(r"((?:.*/)?checkpoints/\d+)/")


def is_url(place: str | os.PathLike) -> bool:
  """Whether a place is a URL, such as `gs://bucket/run`, and not a local path."""
  return re.match(r"[A-Za-z][\w+.-]*://", str(place)) is not None


def path(place: str | os.PathLike) -> Path:
  """Returns a user's path with `~` and `~NAME` expanded to home folders.

  No shell expands them in configs, in notebooks or after the = of a flag. Every path from a user
  passes through this function or `local`; paths of images pass through `images.reading`.
  """
  return Path(os.path.expanduser(place))


@dataclasses.dataclass
class _Copy:
  """A place's local copy.

  Attributes:
    store: the place.
    folder: the copy.
    lock: locked while this process uses the copy; other processes use other copies.
    synced: for each file: its object's tag, and its own size and time at the last transfer.
    listed: the objects at the last listing.
    guard: protects `synced` and `listed`.
  """

  store: Store
  folder: Path
  lock: IO
  synced: dict[str, list]
  listed: dict[str, Entry]
  guard: Any = dataclasses.field(default_factory=threading.Lock)

  def name(self, path: Path) -> str:
    return path.relative_to(self.folder).as_posix()

  def pull(self) -> None:
    """Updates the copy to the place's current contents, except what is downloaded on demand."""
    self.listed = self.store.list()
    self.update()

  def update(self) -> None:
    """Updates the copy to the last listing, except what is downloaded on demand."""
    for name in [name for name in self.synced if name not in self.listed]:
      (self.folder / name).unlink(missing_ok=True)
      del self.synced[name]
    self.fetch(
      name
      for name in self.listed
      if not (_LARGE.match(name) or _ONLY_WRITTEN.match(name)) and self._is_whole(name)
    )

  def _is_whole(self, name: str) -> bool:
    step = _STEP.match(name)
    return step is None or f"{step.group(1)}/{MARKER}" in self.listed

  def fetch(self, names: Iterable[str]) -> None:
    """Downloads the objects that are missing or outdated in the copy."""
    missing = [name for name in names if not self._is_current(name)]
    needed, free = sum(self.listed[name].size for name in missing), shutil.disk_usage(self.folder)
    if needed > free.free:
      raise OSError(
        errno.ENOSPC,
        f"{self.store.url}: needs {needed / 1e9:.1f} GB on this machine and {free.free / 1e9:.1f} "
        f"GB are free in {self.folder}; set XDG_CACHE_HOME to a folder on a larger disk",
      )

    def get(name: str) -> None:
      self.store.download(name, self.folder / name, self.listed[name].size)
      self._note(name, self.listed[name])

    with concurrent.futures.ThreadPoolExecutor(TRANSFERS) as pool:
      list(pool.map(get, missing))
    if missing:
      self._save()

  def _is_current(self, name: str) -> bool:
    path, known = self.folder / name, self.synced.get(name)
    return known is not None and known[0] == self.listed[name].tag and path.exists()

  def push(self, path: Path) -> None:
    """Uploads a file of the copy."""
    name, state = self.name(path), path.stat()
    self._note(name, self.store.upload(path, name), state)
    self._save()

  def push_what_was_left(self) -> None:
    """Uploads the files that an earlier run could not, unless others changed them since."""
    for step in self.folder.glob("**/checkpoints/*"):
      if step.name.isdecimal() and not (step / MARKER).exists():
        shutil.rmtree(step)  # Its process was killed before the checkpoint was complete.
    paths = [path for path in self.folder.rglob("*") if path.is_file()]
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name == MARKER)):
      name, state = self.name(path), path.stat()
      known, remote = self.synced.get(name), self.listed.get(name)
      if known and known[1:] == [state.st_size, state.st_mtime_ns]:
        continue
      if not _TEMPORARY.match(name) and (remote.tag if remote else None) == (
        known[0] if known else None
      ):
        self.push(path)
      else:
        path.unlink()
        self.synced.pop(name, None)

  def _note(self, name: str, entry: Entry, state: os.stat_result | None = None) -> None:
    state = state or (self.folder / name).stat()
    with self.guard:
      self.synced[name] = [entry.tag, state.st_size, state.st_mtime_ns]
      self.listed[name] = entry

  def _save(self) -> None:
    path = self.folder.with_suffix(".json")
    with self.guard:
      temporary = path.with_suffix(".incomplete")
      temporary.write_text(json.dumps(self.synced))
      os.replace(temporary, path)

  def remove(self, path: Path) -> None:
    """Removes the object of a file, or those of a folder, beginning with its `MARKER`."""
    name = self.name(path)
    gone = [known for known in self.listed if known == name or known.startswith(f"{name}/")]
    for known in sorted(gone, key=lambda known: (not known.endswith(MARKER), known)):
      self.store.remove(known)
      with self.guard:
        self.listed.pop(known, None)
        self.synced.pop(known, None)
    self._save()


# The copies that this process uses, by folder.
_copies: dict[Path, _Copy] = {}


@atexit.register
def release() -> None:
  """Unlocks this process's copies for other processes."""
  for copy in _copies.values():
    copy.lock.close()
  _copies.clear()


def local(place: str | os.PathLike) -> Path:
  """Returns the local copy of a place. For a local path, returns that path, expanded.

  Args:
    place: a local path, as `path` takes it; or the URL of an object, or of a folder, which may
      still be empty. Shards are not copied; `fetch` downloads them on demand.

  Raises:
    ValueError, ImportError, FileNotFoundError, PermissionError: see `open_store`.
    OSError: the store did not respond in time, or the disk has no space for the copy.
  """
  if not is_url(place):
    return path(place)
  url = str(place).rstrip("/")
  for copy in _copies.values():
    if copy.store.url == url:
      copy.pull()
      return copy.folder
  store = open_store(url)
  if entry := store.entry():
    return _local_file(store, entry)
  copy = _take_copy(store)
  copy.listed = store.list()
  copy.push_what_was_left()
  copy.update()
  _copies[copy.folder] = copy
  return copy.folder


def _local_file(store: Store, entry: Entry) -> Path:
  folder = _folder(f"{store.url} {entry.tag}")
  path = folder / store.url.rpartition("/")[2]
  if not path.exists() or path.stat().st_size != entry.size:
    store.download("", path, entry.size)
  os.utime(folder)  # `cache.trim` removes files by their last use.
  return path


def _folder(url: str) -> Path:
  readable = re.sub(r"[^\w.-]+", "_", url.partition(" ")[0])[-60:]
  return cache_folder() / "places" / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


def _take_copy(store: Store) -> _Copy:
  """Locks the first copy of a place that no other process uses."""
  folder = _folder(store.url)
  folder.mkdir(parents=True, exist_ok=True)
  for number in range(1024):
    lock = open(folder / f"{number}.lock", "w")
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      lock.close()
      continue
    (folder / str(number)).mkdir(exist_ok=True)
    os.utime(folder / str(number))  # `cache.trim` removes copies by their last use.
    known = folder / f"{number}.json"
    synced = json.loads(known.read_text()) if known.exists() else {}
    return _Copy(store, folder / str(number), lock, synced, {})
  raise OSError(f"{folder}: used by 1024 processes, the maximum; wait until some have ended")


def _copy_of(path: Path) -> _Copy | None:
  if not _copies:
    return None
  return next((copy for folder, copy in _copies.items() if path.is_relative_to(folder)), None)


def is_copied(path: Path) -> bool:
  """Whether a path belongs to the local copy of a place."""
  return _copy_of(path) is not None


def publish(path: Path) -> None:
  """Uploads a file that was written, if it belongs to the copy of a place."""
  if copy := _copy_of(path):
    copy.push(path)


def publish_folder(folder: Path, whole: bool = False) -> None:
  """Uploads the changed files of a folder, if it belongs to the copy of a place.

  Args:
    folder: the folder.
    whole: whether the folder is valid only when complete. If so, `MARKER` is added and uploaded
      last.
  """
  if copy := _copy_of(folder):
    if whole:
      (folder / MARKER).write_text("whole\n")
    paths = [path for path in folder.rglob("*") if path.is_file()]
    for path in sorted(paths, key=lambda path: path.name == MARKER):
      state = path.stat()
      if copy.synced.get(copy.name(path), [])[1:] != [state.st_size, state.st_mtime_ns]:
        copy.push(path)


def remove(path: Path) -> None:
  """Removes the objects of a file or folder from the place whose copy it belongs to, if any."""
  if copy := _copy_of(path):
    copy.remove(path)


def folders(folder: Path) -> set[str]:
  """Returns the names of a folder's immediate subfolders in its place; empty outside copies."""
  if (copy := _copy_of(folder)) is None:
    return set()
  prefix = copy.name(folder) + "/"
  inside = (name.removeprefix(prefix) for name in copy.listed if name.startswith(prefix))
  return {name.partition("/")[0] for name in inside if "/" in name}


def pull() -> None:
  """Downloads what other processes have uploaded since."""
  for copy in _copies.values():
    copy.pull()


def fetch(paths: Iterable[Path]) -> None:
  """Downloads those of the files, such as shards, that belong to a place's copy and exist there."""
  paths = list(paths)
  for copy in _copies.values():
    names = [copy.name(path) for path in paths if path.is_relative_to(copy.folder)]
    copy.fetch(name for name in names if name in copy.listed)


def size(path: Path) -> int | None:
  """Returns the size in bytes of a file, local or only in its place; None if it does not exist."""
  if path.exists():
    return path.stat().st_size
  copy = _copy_of(path)
  entry = copy and copy.listed.get(copy.name(path))
  return entry.size if entry else None


def in_urls(text: str) -> str:
  """Replaces the paths of local copies in a text with the URLs of their places."""
  for folder, copy in _copies.items():
    text = text.replace(str(folder), copy.store.url)
  return text
