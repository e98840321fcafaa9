"""Names of files that are still being written."""

import hashlib
import os
from pathlib import Path

ENDING = ".incomplete"
# File systems allow 255 bytes, and 143 where names are encrypted.
_SHORT = 143 - len(ENDING)


def beside(path: Path) -> Path:
  """Returns a temporary path in the same folder, valid wherever the file's own name is.

  The temporary name is the file's name, or the hash of a long name, followed by `ENDING`.
  """
  name = os.fsencode(path.name)
  if len(name) <= _SHORT:
    return path.with_name(path.name + ENDING)
  return path.with_name(hashlib.sha256(name).hexdigest()[:32] + ENDING)
