"""Names of files that are still being written."""

import hashlib
import os
from pathlib import Path

ENDING = ".incomplete"
# File systems allow 255 bytes, and 143 where names are encrypted.
_SHORT = 143 - len(ENDING)


def beside(path: Path) -> Path:
  """Returns the temporary path of a file: in its folder, and allowed wherever the file's own is.

  It is the file's name and `ENDING`; of a long name it has a hash alone.
  """
  name = os.fsencode(path.name)
  if len(name) <= _SHORT:
    return path.with_name(path.name + ENDING)
  return path.with_name(hashlib.sha256(name).hexdigest()[:32] + ENDING)
