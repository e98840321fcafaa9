"""What a published checkpoint is: where it lies, and the settings that its arrays do not tell."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Variant:
  """One published checkpoint, as `--variant=NAME` names it.

  Attributes:
    url: where its authors publish it.
    settings: what its format's `convert` needs to know beside the file itself.
    note: what its user should know before converting it, or nothing.
    sha256: the SHA-256 of the published file in hexadecimal, or None where it is not known.
  """

  url: str
  settings: Mapping[str, Any]
  note: str = ""
  sha256: str | None = None
