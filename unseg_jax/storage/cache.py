"""The cache folder: downloads, compiled programs and local copies of remote folders.

The folder has a size limit; the least recently used items are removed first. Results that are not
uploaded yet, and copies that a process is using, are never removed.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from unseg_jax.errors import InvalidValue

LIMIT = "UNSEG_JAX_CACHE_GB"
DEFAULT_GB = 50.0


def cache_folder() -> Path:
  """Returns the cache folder: `unseg_jax` in `$XDG_CACHE_HOME`, or in `~/.cache` if it is unset."""
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unseg_jax"


def limit() -> float:
  """Returns the size limit in bytes: `$UNSEG_JAX_CACHE_GB`, or 50 GB if it is unset.

  Raises:
    ValueError: the variable is not a number of at least 0.
  """
  text = os.environ.get(LIMIT) or str(DEFAULT_GB)
  try:
    gigabytes = float(text)
  except ValueError:
    gigabytes = -1.0
  if not gigabytes >= 0:
    raise InvalidValue(f"{LIMIT}={text}: expected a number of gigabytes, such as {DEFAULT_GB:g}")
  return gigabytes * 1e9


@dataclasses.dataclass(frozen=True)
class Kept:
  """An item of the cache, which is removed as a unit.

  Attributes:
    kind: `downloads`, `compiled` or `places`.
    path: a file or a folder.
    size: the total size of its files, in bytes.
    used: the time of its last use, in seconds since 1970.
  """

  kind: str
  path: Path
  size: int
  used: float


def contents() -> list[Kept]:
  """Lists the items of the cache, least recently used first."""
  folder, kept = cache_folder(), []
  for path in folder.glob("*"):
    if path.name not in ("compiled", "places"):
      kept.append(_kept("downloads", path))
  kept += [_kept("compiled", path) for path in folder.glob("compiled/*")]
  for place in folder.glob("places/*"):
    # A run has one copy per concurrent process; a single object has a folder.
    is_run = any(place.glob("*.lock"))
    copies = [path for path in place.glob("*") if path.name.isdecimal() and path.is_dir()]
    kept += [_kept("places", path) for path in (copies if is_run else [place])]
  return sorted(kept, key=lambda item: (item.used, str(item.path)))


def _kept(kind: str, path: Path) -> Kept:
  """Describes a file or a folder, which another process may be removing at the same time."""
  size, used = 0, 0.0
  for file in [path, *path.rglob("*")]:
    with contextlib.suppress(OSError):
      state = file.stat()
      size += 0 if file.is_dir() else state.st_size
      # File systems may not record access times, or update them only once a day.
      used = max(used, state.st_mtime, 0 if file.is_dir() else state.st_atime)
  return Kept(kind, path, size, used)


def trim(most: float | None = None) -> list[Kept]:
  """Removes the least recently used items until the folder is within its limit.

  Args:
    most: the limit in bytes; None: the value of `limit`.

  Returns:
    The removed items.

  Raises:
    ValueError: see `limit`.
  """
  most = limit() if most is None else most
  kept = contents()
  size, removed = sum(item.size for item in kept), []
  for item in kept:
    if size <= most and most:
      break
    if _remove(item):
      removed.append(item)
      size -= item.size
  return removed


def _remove(item: Kept) -> bool:
  """Removes an item unless it is in use or contains unsent files; returns whether it did."""
  with _unused(item) as may_go:
    if may_go and item.path.is_dir():
      shutil.rmtree(item.path, ignore_errors=True)
      item.path.with_suffix(".json").unlink(missing_ok=True)
    elif may_go:
      item.path.unlink(missing_ok=True)
  return may_go


@contextlib.contextmanager
def _unused(item: Kept) -> Iterator[bool]:
  """Yields whether an item may be removed; locks it against other processes meanwhile."""
  if not (item.kind == "places" and item.path.name.isdecimal()):
    yield True
    return
  with open(item.path.with_suffix(".lock"), "a") as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      yield False
    else:
      yield not _holds_unsent(item.path)


def _holds_unsent(copy: Path) -> bool:
  """Whether a copy has files that differ from those of its remote folder; see `places`."""
  known = copy.with_suffix(".json")
  try:
    synced = json.loads(known.read_text()) if known.exists() else {}
  except ValueError:
    return True
  for path in copy.rglob("*"):
    if path.is_file():
      state = path.stat()
      name = path.relative_to(copy).as_posix()
      if synced.get(name, [])[1:] != [state.st_size, state.st_mtime_ns]:
        return True
  return False
