r"""Stage 5: one HTML page about a run, or about several runs side by side.

    python -m unseg_jax.report runs/NAME                  writes runs/NAME/report.html
    python -m unseg_jax.report runs/NAME runs/OTHER ...   compares the runs in comparison.html

Runs are named by their workdirs. A run may be unfinished: the page then shows its results so far,
which stages are complete, and when the run last wrote a file. The page is one file: it loads
nothing from the network, runs no script, follows the browser's light or dark theme, and fits a
phone. An existing page is replaced only once the new one is complete.

The exit status is 1 after an error, which stderr explains.
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
  """Writes the page for the runs in `argv`; returns the exit status."""
  try:
    parallel.check_devices()
    path = make(argv[1:], flags.FLAGS.output)
    for run in argv[1:]:
      directory = places.local(run)
      for line in under_way.describe(under_way.stages(directory, read_config(directory))):
        print(places.in_urls(f"{directory}: {line}"))
    print(places.in_urls(f"report: {path}"))
  except Exception as error:
    print(commands.explain(error), file=sys.stderr)
    return 1
  return 0


def make(runs: Sequence[str], output: str | None) -> Path:
  """Writes the report of one run, or the comparison of several; returns the page's path.

  Args:
    runs: their workdirs, folders or URLs.
    output: the path of the page; None: report.html in the workdir of a single run, or
      comparison.html in the current folder for several.

  Raises:
    FileNotFoundError, ValueError: no run is given; a run is not a workdir, is damaged or is given
      twice; its images are missing; or `output` does not name a page. No page is written.
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
    raise InvalidValue(f"--output={output}: expected the path of a page, such as comparison.html")
  if others:
    comparison.write([directory, *others], path)
  else:
    listed = configured_pictures(directory)
    report.write(collect(directory, listed, read_config(directory)["report"]["samples"]), path)
  return path


if __name__ == "__main__":
  # Keep messages of libraries off the terminal.
  absl_logging.set_verbosity(absl_logging.ERROR)
  # Defined here, because other commands import this file and define their own --output.
  flags.DEFINE_string(
    "output", None, "Page to write. Default: RUN/report.html, or comparison.html for several runs."
  )
  commands.run(main)
