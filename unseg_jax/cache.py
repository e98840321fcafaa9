r"""Lists or empties the cache folder.

    python -m unseg_jax.cache             shows its size, limit and contents by kind
    python -m unseg_jax.cache --empty     removes everything that can be downloaded or made again

The folder is `~/.cache/unseg_jax`, or `$XDG_CACHE_HOME/unseg_jax`. Commands keep it below 50 GB, or
`$UNSEG_JAX_CACHE_GB` gigabytes, by removing the least recently used items. Items that a process is
using, and results that are not uploaded to their bucket yet, are never removed.
"""

import sys
from collections.abc import Sequence

from absl import flags

from unseg_jax.runtime import commands
from unseg_jax.storage import cache


def main(argv: Sequence[str]) -> int:
  """Runs the command that the flags describe; returns its exit status."""
  try:
    commands.check_no_arguments(argv)
    if flags.FLAGS.empty:
      removed = cache.trim(0)
      print(f"removed {_gigabytes(removed)} from {cache.cache_folder()}")
    print(describe())
  except Exception as error:
    print(commands.explain(error), file=sys.stderr)
    return 1
  return 0


def describe() -> str:
  """Describes the contents of the cache folder, by kind."""
  kept = cache.contents()
  lines = [f"{cache.cache_folder()}: {_gigabytes(kept)} of at most {cache.limit() / 1e9:g} GB"]
  for kind in ("compiled", "downloads", "places"):
    items = [item for item in kept if item.kind == kind]
    lines.append(f"  {kind:<10}{_gigabytes(items):>10} in {len(items)}")
  return "\n".join(lines)


def _gigabytes(kept: Sequence[cache.Kept]) -> str:
  return f"{sum(item.size for item in kept) / 1e9:.3f} GB"


if __name__ == "__main__":
  # Defined here, since other commands define their own flags.
  flags.DEFINE_bool("empty", False, "Remove everything that can be fetched or made again.")
  commands.run(main)
