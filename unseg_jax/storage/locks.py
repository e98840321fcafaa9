"""Locks that reserve a folder, such as a workdir or an output folder, for one run.

On a disk, the lock is a file lock on a hidden file; the operating system releases it however the
process ends. In a bucket, it is a lease: an object that the run renews and that expires.
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
# A lease expires if it is not renewed for this time.
EXPIRY_SECONDS = 120.0
# If two runs start at the same moment, both see after this pause which of them wrote last.
_PAUSE_SECONDS = 1.0
# The most time that a process spends on releasing a lease.
_LEAVING_SECONDS = 3.0

Holder = dict[str, Any]

log = logging.getLogger(__name__)


class Held(UserError, OSError):
  """Another run has locked the folder."""


@contextlib.contextmanager
def held(place: str | os.PathLike, flag: str) -> Iterator[None]:
  """Locks a folder for this process while the context lasts.

  Args:
    place: a folder, which is created if missing, or its URL.
    flag: the flag that sets the folder, for messages, such as "--workdir".

  Raises:
    Held: another process has locked it; nothing was changed.
    OSError: the folder cannot be written, or its store did not respond.
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
  """Identifies the PID namespace of this process, or returns "" if it is unknown."""
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
  return Held(f"{place} is in use by {who}{more}; wait until that run ends, or use another {flag}")


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
    for path in made:  # Fails, as it should, for a folder that is not empty.
      with contextlib.suppress(OSError):
        path.rmdir()


def _make(folder: Path) -> list[Path]:
  """Creates a folder with its parents; returns those that were missing, innermost first."""
  missing = [path for path in (folder, *folder.parents) if not path.exists()]
  folder.mkdir(parents=True, exist_ok=True)
  return missing


def _locked(path: Path, place: str | os.PathLike, flag: str) -> int:
  """Opens and locks a file; returns its descriptor. Raises a `Held` if it is locked already."""
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
      log.warning("%s: the file system has no locks (%s); do not start a second run", place, error)
      return descriptor
    with contextlib.suppress(FileNotFoundError):
      if os.path.samestat(os.stat(path), os.fstat(descriptor)):
        return descriptor
    os.close(descriptor)  # The run that had locked the file has removed it; try again.


class _Lease:
  """An object that names the owner of a bucket's folder and is renewed until `release`."""

  def __init__(self, tree: file_trees.FileTree) -> None:
    self.tree, self.holder, self.ended = tree, _holder(), threading.Event()
    self.thread = threading.Thread(target=self._renew, name="lease", daemon=True)

  def take(self, place: str | os.PathLike, flag: str) -> None:
    """Writes the object and starts renewing it; raises a `Held` if another run has the lease."""
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
    more = f" (renewed {age:.0f} s ago; expires after {EXPIRY_SECONDS:.0f} s)"
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
          # No damage is possible: both runs write the same contents, atomically.
          log.error("%s", _refusal(self.tree.where(""), "folder", other))
          return
        self._write()
      except OSError as error:
        log.warning("%s", error)

  def release(self) -> None:
    """Removes the object if it still belongs to this run."""
    self.ended.set()
    self.thread.join()
    try:
      if self._is_own(self.read()):
        self.tree.remove(NAME)
    except OSError as error:
      log.warning("%s", error)


def is_left_behind(holder: Holder) -> bool:
  """Whether a lease has expired, or its process ran on this machine and has ended."""
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
  """Releases this process's leases, within 3 s each; a lease that is not released expires."""
  while _leases:
    # On another thread, since the retries of an unresponsive store take longer than this may.
    leaving = threading.Thread(target=_leases.pop().release, daemon=True)
    leaving.start()
    leaving.join(_LEAVING_SECONDS)
