"""Huge pages for the large arrays of a process, on Linux with glibc."""

import os
import sys
from pathlib import Path

_MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_VARIABLE = "GLIBC_TUNABLES"
_FIRST_VERSION = (2, 35)  # Of glibc, that knows the setting.


def use(module: str) -> None:
  """Restarts `python -m MODULE` with huge pages, if the system offers them.

  Call it before all else. A process that was started in another way continues as it is.

  XLA allocates the temporary arrays of a program at every call, and Linux clears each page on its
  first use. Of a training run on a CPU, that takes a tenth of the time with pages of 4 KiB. glibc
  reads the setting when a process starts, and only from an environment variable. If the user has
  set the variable, the process continues as it is.
  """
  own = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]  # Without the module's arguments.
  if own[-2:] == ["-m", module] and _VARIABLE not in os.environ and _are_offered():
    os.environ[_VARIABLE] = "glibc.malloc.hugetlb=1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _are_offered() -> bool:
  """Whether processes get huge pages when they ask for them, and glibc can ask."""
  try:
    mode = _MODE.read_text()
    library, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
  except (OSError, ValueError):  # Another system, or another C library.
    return False
  numbers = tuple(int(part) for part in version.split(".") if part.isdecimal())
  return "[madvise]" in mode and library == "glibc" and numbers >= _FIRST_VERSION
