"""Returns freed image memory to the system; otherwise glibc retains most of it for each thread."""

import ctypes
import functools
import sys
from typing import Any

LARGE = 2**20  # Bytes; larger blocks return to the system as soon as they are freed.
_M_MMAP_THRESHOLD = -3  # The value in glibc's malloc.h.


@functools.cache
def _library() -> Any:
  """Returns the C library, or None if it is not glibc."""
  library = ctypes.CDLL(None) if sys.platform == "linux" else None
  return library if hasattr(library, "malloc_trim") else None


def return_large_blocks() -> None:
  """Makes glibc return large blocks as soon as they are freed, for the life of the process."""
  if library := _library():
    library.mallopt(_M_MMAP_THRESHOLD, LARGE)


def return_freed() -> None:
  """Returns the freed blocks that glibc retains."""
  if library := _library():
    library.malloc_trim(0)
