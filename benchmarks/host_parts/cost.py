"""What a pair or a picture costs the host."""

import dataclasses
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a pair or a picture costs.

  Attributes:
    seconds: wall time.
    cpu: processor time of all processes.
    serial: processor time of the process that feeds the devices; equal to `cpu` where it is alone.
  """

  seconds: float
  cpu: float
  serial: float


def processor_seconds() -> tuple[float, float]:
  """Processor time so far, of all processes and of this one."""
  tick = os.sysconf("SC_CLK_TCK")
  others = 0.0
  for child in multiprocessing.active_children():
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    others += (int(fields[11]) + int(fields[12])) / tick  # User and system.
  own = time.process_time()
  return own + others, own


def measure(count: int, work: Callable[[], None]) -> Cost:
  """Runs what handles so many pairs or pictures, and measures it."""
  start, before = time.perf_counter(), processor_seconds()
  work()
  after, seconds = processor_seconds(), time.perf_counter() - start
  used = [end - begin for end, begin in zip(after, before, strict=True)]
  return Cost(seconds / count, used[0] / count, used[1] / count)
