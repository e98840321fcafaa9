"""Worker processes for what Python's lock would hold up: encoding and decoding.

They import the module of the function that they run, start no device, and end when this process
does, in whatever way that ends.
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool

from unseg_jax.errors import UserError

# More of them than the process that feeds them can serve would only take memory.
MOST = 16


class WorkerDied(UserError, RuntimeError):
  """A worker process ended in the middle of its work."""


def spare_processors(computing_here: bool) -> int:
  """The number of worker processes that this machine has processors for.

  Args:
    computing_here: whether JAX computes on the processors as well, and leaves none to spare.
  """
  usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
  # Two stay with this process: one runs Python, one JAX's own threads.
  return 0 if computing_here else min(MOST, max(0, usable - 2))


@contextlib.contextmanager
def executor(count: int, threads: int | None = None) -> Iterator[concurrent.futures.Executor]:
  """Yields what runs functions beside this thread.

  Args:
    count: number of worker processes; 0: threads of this process instead.
    threads: how many threads, where `count` is 0; None: concurrent.futures' own number.

  Raises:
    WorkerDied: a worker process ended in the middle of its work.
  """
  if not count:
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
      yield pool
    return
  # Not forked: this process has threads and devices.
  context = multiprocessing.get_context("spawn")
  try:
    with concurrent.futures.ProcessPoolExecutor(count, context, _follow_parent) as pool:
      yield pool
  except BrokenProcessPool as error:
    raise WorkerDied(
      f"one of {count} worker processes ended in the middle of its work, most often because memory "
      "ran out. Run the same command again, with fewer --workers or with --workers=0."
    ) from error


def _follow_parent() -> None:
  """Leaves Ctrl-C, SIGTERM and SIGHUP to the parent; ends when that does, even by SIGKILL."""
  for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    if hasattr(signal, name):
      signal.signal(getattr(signal, name), signal.SIG_IGN)
  parent = multiprocessing.parent_process()
  assert parent  # This runs in a worker process only.

  def wait() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()
