"""Worker processes for encoding and decoding, which Python's global lock would serialise.

A worker imports the module of the function that it runs, starts no device, and ends when this
process ends, even if that is killed.
"""

import concurrent.futures
import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool

from unseg_jax.errors import UserError
from unseg_jax.runtime.shared_arrays import SharedArraysExecutor

# One process cannot feed more workers than this; more would only take memory.
MOST = 16


class WorkerDied(UserError, RuntimeError):
  """A worker process ended unexpectedly."""


def spare_processors(computing_here: bool) -> int:
  """Returns the number of CPU cores that are free for worker processes.

  Args:
    computing_here: whether JAX computes on the CPU, too, which leaves no free cores.
  """
  usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
  # Two cores are for this process: one for Python, one for JAX's threads.
  return 0 if computing_here else min(MOST, max(0, usable - 2))


@contextlib.contextmanager
def executor(count: int, threads: int | None = None) -> Iterator[concurrent.futures.Executor]:
  """Yields an executor of worker processes or threads.

  Args:
    count: number of worker processes; 0: use threads of this process.
    threads: number of threads if `count` is 0; None: the default of concurrent.futures.

  Raises:
    WorkerDied: a worker process ended unexpectedly.
  """
  if not count:
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
      yield pool
    return
  # Forking is unsafe, since this process has threads and devices.
  context = multiprocessing.get_context("spawn")
  # Only this process holds the writer. It closes with this process, or if the pool breaks.
  reader, writer = context.Pipe(duplex=False)
  try:
    begin = functools.partial(_end_with, reader)
    with reader, writer, SharedArraysExecutor(count, context, begin, writer.close) as pool:
      yield pool
  except BrokenProcessPool as error:
    raise WorkerDied(
      f"one of {count} worker processes ended unexpectedly, most often because memory ran out. Run "
      "the same command again, with fewer --workers or with --workers=0."
    ) from error


def _end_with(reader: multiprocessing.connection.Connection) -> None:
  """Ignores signals, which the parent handles; ends when the other end of the pipe is closed."""
  for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    if hasattr(signal, name):
      signal.signal(getattr(signal, name), signal.SIG_IGN)

  def wait() -> None:
    reader.poll(None)
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()
