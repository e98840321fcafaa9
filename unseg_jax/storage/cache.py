"""Where the package keeps, for a user, what can be fetched or made again."""

import os
from pathlib import Path


def cache_folder() -> Path:
  """Where downloads and the like are kept: `unseg_jax` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unseg_jax"
