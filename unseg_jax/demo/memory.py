"""Keeps the server small: glibc else holds on to most of what pictures took up, for each thread."""

import ctypes
import functools
import sys
from typing import Any

LARGE = 2**20  # Bytes; blocks of this size return to the system as soon as they are freed.
_M_MMAP_THRESHOLD = -3  # Its number in glibc's malloc.h.


@functools.cache
def _library() -> Any:
  """The C library, or None if it is not glibc."""
  library = ctypes.CDLL(None) if sys.platform == "linux" else None
  return library if hasattr(library, "malloc_trim") else None


def let_large_blocks_go() -> None:
  """Has glibc return large blocks at once, for as long as the process lives."""
  if library := _library():
    library.mallopt(_M_MMAP_THRESHOLD, LARGE)


def return_freed() -> None:
  """Returns to the system what glibc still holds of freed blocks."""
  if library := _library():
    library.malloc_trim(0)
