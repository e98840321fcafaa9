"""The host's cost of a pair or a picture."""

import dataclasses
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Cost:
  """The cost of a pair or a picture, in seconds.

  Attributes:
    seconds: wall time.
    cpu: CPU time of all processes.
    serial: CPU time of the process that feeds the devices; equal to `cpu` without other processes.
  """

  seconds: float
  cpu: float
  serial: float


def processor_seconds() -> tuple[float, float]:
  """Returns the CPU time so far, of all processes and of this one."""
  tick = os.sysconf("SC_CLK_TCK")
  others = 0.0
  for child in multiprocessing.active_children():
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    others += (int(fields[11]) + int(fields[12])) / tick  # User and system.
  own = time.process_time()
  return own + others, own


def measure(count: int, work: Callable[[], None]) -> Cost:
  """Runs work on `count` pairs or pictures; returns the cost of one."""
  start, before = time.perf_counter(), processor_seconds()
  work()
  after, seconds = processor_seconds(), time.perf_counter() - start
  used = [end - begin for end, begin in zip(after, before, strict=True)]
  return Cost(seconds / count, used[0] / count, used[1] / count)
