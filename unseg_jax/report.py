r"""Stage 5: one HTML page to look at, of a run or of several side by side.

    python -m unseg_jax.report runs/NAME                  writes runs/NAME/report.html anew
    python -m unseg_jax.report runs/NAME runs/OTHER ...   compares the runs in comparison.html

The runs are named by their workdirs. For a run that is under way, the page shows the results so
far, how far each stage is, and when it last wrote. The page stands alone: it asks no host for
anything, needs no script, follows the reader's light or dark theme, and fits a phone. An existing
page is replaced atomically.

The exit status is 1 if anything went wrong, and stderr says what.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from absl import logging as absl_logging

from unseg_jax.errors import InvalidValue
from unseg_jax.reporting import comparison, report, under_way
from unseg_jax.reporting.contents import collect, configured_pictures, read_config
from unseg_jax.runtime import commands, parallel
from unseg_jax.storage import places


def main(argv: Sequence[str]) -> int:
  """Runs the command that the arguments describe; returns its exit status."""
  try:
    parallel.check_devices()
    path = make(argv[1:], flags.FLAGS.output)
    for run in argv[1:]:
      directory = places.local(run)
      for line in under_way.describe(directory, read_config(directory)):
        print(places.in_urls(f"{directory}: {line}"))
    print(places.in_urls(f"report: {path}"))
  except Exception as error:
    print(commands.explain(error), file=sys.stderr)
    return 1
  return 0


def make(runs: Sequence[str], output: str | None) -> Path:
  """Writes the page of one run, or that which compares several; returns where it went.

  Args:
    runs: their workdirs, folders or URLs.
    output: where the page goes; if None, report.html in the workdir of one run, and
      comparison.html in the current folder for several.

  Raises:
    FileNotFoundError, ValueError: no run is given, one is no workdir, is damaged or given twice,
      its pictures are missing, or `output` is no name of a page. The page is not touched.
    OSError: the page cannot be written.
  """
  if not runs:
    raise InvalidValue("no run given; usage: python -m unseg_jax.report RUN [RUN ...]")
  directory, *others = (places.local(run) for run in runs)
  default = "comparison.html" if others else directory / "report.html"
  if output and places.is_url(output):
    folder, _, name = output.rpartition("/")
    path = places.local(folder) / name
  else:
    path = places.path(output or default)
  if path.suffix.lower() not in (".html", ".htm") or path.is_dir():
    raise InvalidValue(f"--output={output}: expected the name of a page, such as comparison.html")
  if others:
    comparison.write([directory, *others], path)
  else:
    listed = configured_pictures(directory)
    report.write(collect(directory, listed, read_config(directory)["report"]["samples"]), path)
  return path


if __name__ == "__main__":
  # The libraries' own chatter stays out of the way.
  absl_logging.set_verbosity(absl_logging.ERROR)
  # Defined here, as other commands that import this file have an --output of their own.
  flags.DEFINE_string(
    "output", None, "Page to write. Default: RUN/report.html, or comparison.html for several runs."
  )
  commands.run(main)
