"""Places that a URL names, such as a bucket: nothing above knows that they are not folders.

What fsspec opens (`gs://`, `s3://`, ...) may stand wherever a folder or a file may. The libraries
here read and write local files, so a place is kept as a local copy in the cache folder: `local`
brings it up to date and returns it, `publish` puts a file of the copy into the place, and `pull`
gets what others have put into the place since. Files outside of such copies are left alone.

Objects are written atomically. A folder that counts only when complete, such as a checkpoint's,
gets the object `MARKER` last, and is not looked at without it.
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

MARKER = "commit_success.txt"  # As orbax itself marks a checkpoint in a bucket.
TRANSFERS = 8  # At a time.

# Shards are large, and a process of several reads not all of them: fetched when they are asked for.
_LARGE = re.compile(r".*\.array_record-\d+$")
_ONLY_WRITTEN = re.compile(r"(.*/)?events/")
_TEMPORARY = re.compile(r".*(\.incomplete$|\.orbax-checkpoint-tmp)")
_STEP = re.compile(r"((?:.*/)?checkpoints/\d+)/")


def is_url(place: str | os.PathLike) -> bool:
  """Whether a place is a URL, such as `gs://bucket/run`, and not a local path."""
  return re.match(r"[A-Za-z][\w+.-]*://", str(place)) is not None


def path(place: str | os.PathLike) -> Path:
  """Returns the local path that a user means, `~` and `~NAME` being home folders.

  No shell expands them in configs, in notebooks and behind the = of a flag. Every path that a user
  names comes through here, or through `local`; pictures' through `images.reading`.
  """
  return Path(os.path.expanduser(place))


@dataclasses.dataclass
class _Copy:
  """A place's local copy.

  Attributes:
    store: the place.
    folder: the copy.
    lock: held while this process uses the copy; another one takes another copy.
    synced: for each file its object's tag, and its own size and time when they were the same.
    listed: the objects, as they were last listed.
    guard: for the two above.
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
    """Makes the copy what the place is, but for what is fetched later."""
    self.listed = self.store.list()
    self.update()

  def update(self) -> None:
    """Makes the copy what was listed last, but for what is fetched later."""
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
    """Gets those of the objects that the copy has not as they are."""
    missing = [name for name in names if not self._is_current(name)]
    needed, free = sum(self.listed[name].size for name in missing), shutil.disk_usage(self.folder)
    if needed > free.free:
      raise OSError(
        errno.ENOSPC,
        f"{self.store.url}: {needed / 1e9:.1f} GB are to be fetched and {free.free / 1e9:.1f} GB "
        f"are free in {self.folder}; set XDG_CACHE_HOME to a folder on a larger disk",
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
    """Puts a file of the copy into the place."""
    name, state = self.name(path), path.stat()
    self._note(name, self.store.upload(path, name), state)
    self._save()

  def push_what_was_left(self) -> None:
    """Sends what an earlier run could not; what others changed since stays as they left it."""
    for step in self.folder.glob("**/checkpoints/*"):
      if step.name.isdecimal() and not (step / MARKER).exists():
        shutil.rmtree(step)  # Its process was killed before it was complete.
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
    """Removes a file's object, or those of a folder; what makes the folder count goes first."""
    name = self.name(path)
    gone = [known for known in self.listed if known == name or known.startswith(f"{name}/")]
    for known in sorted(gone, key=lambda known: (not known.endswith(MARKER), known)):
      self.store.remove(known)
      with self.guard:
        self.listed.pop(known, None)
        self.synced.pop(known, None)
    self._save()


# The copies that this process uses, by their folders.
_copies: dict[Path, _Copy] = {}


@atexit.register
def release() -> None:
  """Lets other processes use this one's copies."""
  for copy in _copies.values():
    copy.lock.close()
  _copies.clear()


def local(place: str | os.PathLike) -> Path:
  """Returns where a place can be read and written as local files; a local path is that itself.

  Args:
    place: a local path, as `path` takes it; or the URL of an object, or of a folder, which may be
      empty as yet. Of runs' folders the shards are left to `fetch`.

  Raises:
    ValueError, ImportError, FileNotFoundError, PermissionError: see `open_store`.
    OSError: the store did not answer for long, or the disk has no space for the copy.
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
  os.utime(folder)  # It was used: `cache.trim` keeps it longer.
  return path


def _folder(url: str) -> Path:
  readable = re.sub(r"[^\w.-]+", "_", url.partition(" ")[0])[-60:]
  return cache_folder() / "places" / f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


def _take_copy(store: Store) -> _Copy:
  """Takes the first copy of a place that no other process uses."""
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
    os.utime(folder / str(number))  # It is used: `cache.trim` keeps it longer.
    known = folder / f"{number}.json"
    synced = json.loads(known.read_text()) if known.exists() else {}
    return _Copy(store, folder / str(number), lock, synced, {})
  raise OSError(f"{folder}: more than 1024 processes use it")


def _copy_of(path: Path) -> _Copy | None:
  if not _copies:
    return None
  return next((copy for folder, copy in _copies.items() if path.is_relative_to(folder)), None)


def is_copied(path: Path) -> bool:
  """Whether a path belongs to the local copy of a place."""
  return _copy_of(path) is not None


def publish(path: Path) -> None:
  """Puts a file that was written into the place whose copy it belongs to, if to any."""
  if copy := _copy_of(path):
    copy.push(path)


def publish_folder(folder: Path, whole: bool = False) -> None:
  """Publishes the files of a folder that changed.

  Args:
    folder: belongs to a place's copy, or nothing happens.
    whole: whether the folder counts only when complete; `MARKER` then goes last.
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
  """Removes what a place holds of a file or a folder that was removed from its copy."""
  if copy := _copy_of(path):
    copy.remove(path)


def folders(folder: Path) -> set[str]:
  """The names of the folders that a place holds directly in a folder of its copy."""
  if (copy := _copy_of(folder)) is None:
    return set()
  prefix = copy.name(folder) + "/"
  inside = (name.removeprefix(prefix) for name in copy.listed if name.startswith(prefix))
  return {name.partition("/")[0] for name in inside if "/" in name}


def pull() -> None:
  """Gets what other processes published since."""
  for copy in _copies.values():
    copy.pull()


def fetch(paths: Iterable[Path]) -> None:
  """Gets large files: those that belong to a place's copy and that the place has."""
  paths = list(paths)
  for copy in _copies.values():
    names = [copy.name(path) for path in paths if path.is_relative_to(copy.folder)]
    copy.fetch(name for name in names if name in copy.listed)


def size(path: Path) -> int | None:
  """The size of a file in bytes, be it here or only in the place; None: it is nowhere."""
  if path.exists():
    return path.stat().st_size
  copy = _copy_of(path)
  entry = copy and copy.listed.get(copy.name(path))
  return entry.size if entry else None


def in_urls(text: str) -> str:
  """Returns a text with the folders of copies replaced by the URLs of their places."""
  for folder, copy in _copies.items():
    text = text.replace(str(folder), copy.store.url)
  return text
