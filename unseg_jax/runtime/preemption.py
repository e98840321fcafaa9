"""Leaving in good order on SIGTERM, which clusters send before they take a machine away."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import NoReturn

from unseg_jax.runtime import parallel

# The exit status of a run that was asked to leave: as sysexits.h has it, "try again later".
EXIT_STATUS = 75

_requested = threading.Event()


class Preempted(Exception):
  """The run was asked to leave, and what it had done is saved."""


@contextlib.contextmanager
def watch() -> Iterator[None]:
  """Notes a SIGTERM, instead of dying of it, while the context lasts."""
  _requested.clear()
  previous = signal.signal(signal.SIGTERM, lambda *_: _requested.set())
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, previous)


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
  raise Preempted(
    f"asked to leave (SIGTERM): {saved}. Run the same command again to continue from there."
  )
