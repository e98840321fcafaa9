"""Graceful shutdown on SIGTERM, which clusters send before they reclaim a machine.

Ctrl-C (SIGINT) and a closed terminal (SIGHUP) are handled in the same way.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from unseg_jax.runtime import parallel

# The exit status of a run that a signal stopped: EX_TEMPFAIL of sysexits.h, "try again later".
EXIT_STATUS = 75

# The signals that stop a run. Windows has no SIGHUP.
SIGNALS = tuple(
  getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)

_requested = threading.Event()
_asked_by: list[signal.Signals] = []  # The signals received so far.


class Preempted(Exception):
  """A signal stopped the run; finished work is saved."""


@contextlib.contextmanager
def watch() -> Iterator[None]:
  """Records termination signals, instead of ending the process, while the context lasts.

  A second Ctrl-C ends the process at once. Signals that the process was started to ignore, such as
  SIGHUP under `nohup`, stay ignored.
  """
  _requested.clear()
  _asked_by.clear()
  # Checked now: once the terminal is closed, the process cannot find out which streams used it.
  on_terminal = [number for number in (0, 1, 2) if _is_terminal(number)]

  def note(number: int, _: FrameType | None) -> None:
    asked = signal.Signals(number)
    if asked == signal.SIGINT and signal.SIGINT in _asked_by:
      signal.signal(signal.SIGINT, signal.SIG_DFL)
      os.kill(os.getpid(), signal.SIGINT)
    if asked not in (signal.SIGTERM, signal.SIGINT):
      _let_go(on_terminal)
    elif asked == signal.SIGINT and 2 in on_terminal:
      # Not `print`, which this signal may have interrupted.
      os.write(2, b"\nsaving the work in progress, then leaving; Ctrl-C again ends at once\n")
    _asked_by.append(asked)
    _requested.set()

  previous = {number: signal.getsignal(number) for number in SIGNALS}
  try:
    for number, handler in previous.items():
      if handler != signal.SIG_IGN:
        signal.signal(number, note)
    yield
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)


def _is_terminal(number: int) -> bool:
  try:
    return os.isatty(number)
  except OSError:
    return False


def _let_go(streams: list[int]) -> None:
  """Redirects streams of a closed terminal to the null device, so that writing does not fail."""
  nowhere = os.open(os.devnull, os.O_RDWR)
  for number in streams:
    os.dup2(nowhere, number)
  os.close(nowhere)


def requested() -> bool:
  """Whether a signal asked this process to stop."""
  return _requested.is_set()


def leaving_alone() -> bool:
  """Whether a signal asked this process to stop and the run has no other processes."""
  return requested() and parallel.process_count() == 1


def anyone_leaving() -> bool:
  """Whether a signal asked any process to stop; all processes must call it at the same point."""
  return bool(parallel.gather([requested()]).any())


def leave(saved: str) -> NoReturn:
  """Raises `Preempted` with a message that names the saved work."""
  by = _asked_by[0].name if _asked_by else "by another process"
  raise Preempted(f"stopped ({by}): {saved}. Run the same command again to continue.")
