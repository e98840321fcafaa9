"""Leaving in good order on SIGTERM, which clusters send before they take a machine away.

Ctrl-C and a terminal that is lost are answered in the same way.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from unseg_jax.runtime import parallel

# The exit status of a run that was asked to leave: as sysexits.h has it, "try again later".
EXIT_STATUS = 75

# What asks a process to leave; Windows has no SIGHUP.
SIGNALS = tuple(
  getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
)

_requested = threading.Event()
_asked_by: list[signal.Signals] = []  # The first signal, if it was one.


class Preempted(Exception):
  """The run was asked to leave, and what it had done is saved."""


@contextlib.contextmanager
def watch() -> Iterator[None]:
  """Notes what asks this process to leave, instead of dying of it, while the context lasts.

  A second Ctrl-C ends the process at once. What the process was started to ignore, as `nohup` does
  with SIGHUP, stays ignored.
  """
  _requested.clear()
  _asked_by.clear()
  # Once its terminal is lost, the process can no longer ask which of its streams were on it.
  on_terminal = [number for number in (0, 1, 2) if _is_terminal(number)]

  def note(number: int, _: FrameType | None) -> None:
    asked = signal.Signals(number)
    if asked == signal.SIGINT and signal.SIGINT in _asked_by:
      signal.signal(signal.SIGINT, signal.SIG_DFL)
      os.kill(os.getpid(), signal.SIGINT)
    if asked not in (signal.SIGTERM, signal.SIGINT):
      _let_go(on_terminal)
    elif asked == signal.SIGINT and 2 in on_terminal:
      # Not by `print`, which a signal may interrupt.
      os.write(2, b"\nleaving as soon as what is under way is saved; Ctrl-C again ends at once\n")
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
  """Sends what is still written to a lost terminal nowhere, where else it would fail."""
  nowhere = os.open(os.devnull, os.O_RDWR)
  for number in streams:
    os.dup2(nowhere, number)
  os.close(nowhere)


def requested() -> bool:
  """Whether this process was asked to leave."""
  return _requested.is_set()


def leaving_alone() -> bool:
  """Whether this process was asked to leave and has no others to agree with."""
  return requested() and parallel.process_count() == 1


def anyone_leaving() -> bool:
  """Whether any process was asked to leave; all of them must ask at the same point."""
  return bool(parallel.gather([requested()]).any())


def leave(saved: str) -> NoReturn:
  """Raises `Preempted`, saying what was saved."""
  by = _asked_by[0].name if _asked_by else "by another process"
  raise Preempted(
    f"asked to leave ({by}): {saved}. Run the same command again to continue from there."
  )
