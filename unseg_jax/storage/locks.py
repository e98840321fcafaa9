"""A folder that belongs to one run at a time: a workdir, or what a command writes to.

On a disk it is a lock on a hidden file, which the system gives back however its process ends. In a
bucket it is an object that its run renews, and that counts as left behind when it is old.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unseg_jax.errors import UserError
from unseg_jax.storage import file_trees, places, stores

NAME = stores.LOCK_NAME
RENEW_SECONDS = 20.0
# A run that has not renewed its object for so long is gone.
EXPIRY_SECONDS = 120.0
# Of two runs that start at the same moment, each sees after this pause which one wrote last.
_PAUSE_SECONDS = 1.0
# What a process may take to give back what it holds.
_LEAVING_SECONDS = 3.0

Holder = dict[str, Any]

log = logging.getLogger(__name__)


class Held(UserError, OSError):
  """Another run holds the folder."""


@contextlib.contextmanager
def held(place: str | os.PathLike, flag: str) -> Iterator[None]:
  """Keeps a folder for this process while the context lasts.

  Args:
    place: a folder, which is made if it is missing, or its URL.
    flag: names another folder, for messages: "--workdir".

  Raises:
    Held: another process holds it; nothing was changed.
    OSError: the folder cannot be written, or its store did not answer.
    ValueError, ImportError, FileNotFoundError, PermissionError: see `stores.open_store`.
  """
  keep = _held_in_store if places.is_url(place) else _held_on_disk
  with keep(place, flag):
    yield


def _holder() -> Holder:
  return {
    "host": socket.gethostname(),
    "pid": os.getpid(),
    "since": time.time(),
    "machine": _machine(),
  }


def _machine() -> str:
  """What processes have in common that know each other by their numbers; empty if unknown."""
  try:
    started = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{started} {os.stat('/proc/self/ns/pid').st_ino}"
  except OSError:
    return ""


def _refusal(place: str | os.PathLike, flag: str, holder: Holder, more: str = "") -> Held:
  who = "another run"
  if holder:
    since = datetime.datetime.fromtimestamp(holder["since"]).strftime("%Y-%m-%d %H:%M:%S")
    who = f"process {holder['pid']} on {holder['host']} since {since}"
  return Held(f"{place} is held by {who}{more}; wait until that run ends, or use another {flag}")


def _parsed(contents: bytes) -> Holder:
  try:
    holder = json.loads(contents)
  except ValueError:
    return {}
  known = isinstance(holder, dict) and {"host", "pid", "since"} <= holder.keys()
  return holder if known else {}


@contextlib.contextmanager
def _held_on_disk(place: str | os.PathLike, flag: str) -> Iterator[None]:
  folder = places.path(place)
  if folder.exists() and not folder.is_dir():
    raise NotADirectoryError(f"{place} is a file; expected a folder, or a new name.")
  made = _make(folder)
  try:
    descriptor = _locked(folder / NAME, place, flag)
    try:
      os.ftruncate(descriptor, 0)
      os.write(descriptor, json.dumps(_holder()).encode())
      yield
    finally:
      (folder / NAME).unlink(missing_ok=True)
      os.close(descriptor)
  finally:
    for path in made:  # Unless something is in it.
      with contextlib.suppress(OSError):
        path.rmdir()


def _make(folder: Path) -> list[Path]:
  """Makes a folder; returns those that were missing, from the inside."""
  missing = [path for path in (folder, *folder.parents) if not path.exists()]
  folder.mkdir(parents=True, exist_ok=True)
  return missing


def _locked(path: Path, place: str | os.PathLike, flag: str) -> int:
  """Opens a file that no other process has locked, and locks it; returns its descriptor."""
  while True:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      holder = _parsed(os.read(descriptor, 4096))
      os.close(descriptor)
      raise _refusal(place, flag, holder) from None
    except OSError as error:
      if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP):
        raise
      log.warning("%s: its file system has no locks (%s); start no second run there", place, error)
      return descriptor
    with contextlib.suppress(FileNotFoundError):
      if os.path.samestat(os.stat(path), os.fstat(descriptor)):
        return descriptor
    os.close(descriptor)  # The run that held it removed it.


class _Lease:
  """An object that says who holds a folder of a bucket, renewed until `release`."""

  def __init__(self, tree: file_trees.FileTree) -> None:
    self.tree, self.holder, self.ended = tree, _holder(), threading.Event()
    self.thread = threading.Thread(target=self._renew, name="lease", daemon=True)

  def take(self, place: str | os.PathLike, flag: str) -> None:
    """Writes the object and starts to renew it; raises a `Held` if another run has one."""
    self._check(place, flag)
    self._write()
    time.sleep(_PAUSE_SECONDS)
    self._check(place, flag)
    self.thread.start()

  def _check(self, place: str | os.PathLike, flag: str) -> None:
    other = self.read()
    if not other or self._is_own(other) or is_left_behind(other):
      return
    age = time.time() - other.get("renewed", 0)
    more = f" (a sign of life {age:.0f} s ago; without one for {EXPIRY_SECONDS:.0f} s it is gone)"
    raise _refusal(place, flag, other, more)

  def read(self) -> Holder:
    try:
      return _parsed(self.tree.read(NAME))
    except FileNotFoundError:
      return {}

  def _is_own(self, holder: Holder) -> bool:
    return all(holder.get(key) == value for key, value in self.holder.items())

  def _write(self) -> None:
    self.tree.write(NAME, json.dumps(self.holder | {"renewed": time.time()}).encode())

  def _renew(self) -> None:
    while not self.ended.wait(RENEW_SECONDS):
      try:
        if (other := self.read()) and not self._is_own(other):
          # Both write the same files, atomically, so that nothing is damaged.
          log.error("%s", _refusal(self.tree.where(""), "folder", other))
          return
        self._write()
      except OSError as error:
        log.warning("%s", error)

  def release(self) -> None:
    """Removes the object, if it is this run's still."""
    self.ended.set()
    self.thread.join()
    try:
      if self._is_own(self.read()):
        self.tree.remove(NAME)
    except OSError as error:
      log.warning("%s", error)


def is_left_behind(holder: Holder) -> bool:
  """Whether the run that wrote an object is gone, as it is old or its process has ended here."""
  if time.time() - holder.get("renewed", 0) > EXPIRY_SECONDS:
    return True
  if not holder.get("machine") or holder["machine"] != _machine():
    return False
  try:
    os.kill(holder["pid"], 0)
  except ProcessLookupError:
    return True
  except OSError:
    return False
  return False


_leases: list[_Lease] = []


@contextlib.contextmanager
def _held_in_store(place: str | os.PathLike, flag: str) -> Iterator[None]:
  lease = _Lease(file_trees.open_tree(place))
  lease.take(place, flag)
  _leases.append(lease)
  try:
    yield
  finally:
    release()


def release() -> None:
  """Gives back what this process holds in buckets; takes 3 s at most, and else it expires."""
  while _leases:
    # Beside this thread: a store that does not answer is waited for longer than a run should be.
    leaving = threading.Thread(target=_leases.pop().release, daemon=True)
    leaving.start()
    leaving.join(_LEAVING_SECONDS)
