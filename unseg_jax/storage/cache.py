"""Where the package keeps, for a user, what can be fetched or made again.

The folder is kept below a limit: what was used least recently goes first. Results that could not be
sent to their place yet are no such thing, and stay; so does what a process uses at the moment.
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
  """Where downloads and the like are kept: `unseg_jax` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unseg_jax"


def limit() -> float:
  """The most bytes that the folder may hold: `$UNSEG_JAX_CACHE_GB`, or 50 GB.

  Raises:
    ValueError: the variable holds no number of at least 0.
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
  """Something that the folder keeps, and that goes as one.

  Attributes:
    kind: `downloads`, `compiled` or `places`.
    path: the file, or the folder.
    size: in bytes, of all of its files.
    used: when it was used last, in seconds since 1970.
  """

  kind: str
  path: Path
  size: int
  used: float


def contents() -> list[Kept]:
  """Lists what the folder keeps, that which was used least recently first."""
  folder, kept = cache_folder(), []
  for path in folder.glob("*"):
    if path.name not in ("compiled", "places"):
      kept.append(_kept("downloads", path))
  kept += [_kept("compiled", path) for path in folder.glob("compiled/*")]
  for place in folder.glob("places/*"):
    # A run's copies, one for each process that used it at a time; or an object's folder.
    is_run = any(place.glob("*.lock"))
    copies = [path for path in place.glob("*") if path.name.isdecimal() and path.is_dir()]
    kept += [_kept("places", path) for path in (copies if is_run else [place])]
  return sorted(kept, key=lambda item: (item.used, str(item.path)))


def _kept(kind: str, path: Path) -> Kept:
  """Describes a file or folder, which another process may be removing."""
  size, used = 0, 0.0
  for file in [path, *path.rglob("*")]:
    with contextlib.suppress(OSError):
      state = file.stat()
      size += 0 if file.is_dir() else state.st_size
      # A file system may keep no times of access, or a day apart.
      used = max(used, state.st_mtime, 0 if file.is_dir() else state.st_atime)
  return Kept(kind, path, size, used)


def trim(most: float | None = None) -> list[Kept]:
  """Removes what was used least recently until the folder is no larger than its limit.

  Args:
    most: the limit in bytes; None: that of `limit`.

  Returns:
    What was removed.

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
  """Removes something, unless it is in use or holds what is nowhere else."""
  with _unused(item) as may_go:
    if may_go and item.path.is_dir():
      shutil.rmtree(item.path, ignore_errors=True)
      item.path.with_suffix(".json").unlink(missing_ok=True)
    elif may_go:
      item.path.unlink(missing_ok=True)
  return may_go


@contextlib.contextmanager
def _unused(item: Kept) -> Iterator[bool]:
  """Says whether something may go, and keeps others from taking it meanwhile."""
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
  """Whether a copy holds files that are not as its place has them; see `places`."""
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
