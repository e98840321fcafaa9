"""Published checkpoints: their URLs, and settings that their arrays do not determine."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Variant:
  """One published checkpoint, selected by `--variant=NAME`.

  Attributes:
    url: the URL at which its authors publish it.
    settings: the settings that its format's `convert` needs in addition to the file.
    note: information for users before they convert it, or "".
    sha256: the SHA-256 of the published file in hexadecimal, or None if unknown.
  """

  url: str
  settings: Mapping[str, Any]
  note: str = ""
  sha256: str | None = None
