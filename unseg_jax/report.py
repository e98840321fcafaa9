r"""Stage 5: writes an HTML report of a run, or a comparison of several runs.

    python -m unseg_jax.report runs/NAME                  writes runs/NAME/report.html
    python -m unseg_jax.report runs/NAME runs/OTHER ...   compares the runs in comparison.html

Runs are named by their workdirs. For an unfinished run, the page shows the results so far, the
progress of each stage and the time of its last output. The page is self-contained: it makes no
requests, needs no scripts, follows the reader's light or dark theme, and fits a phone. An existing
page is replaced atomically.

If anything goes wrong, the exit status is 1 and stderr names the reason.
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
  """Writes the report of one run, or the comparison of several; returns the page's path.

  Args:
    runs: workdirs, as folders or URLs.
    output: the page's path; None: report.html in the workdir of a single run, or comparison.html in
      the current folder.

  Raises:
    FileNotFoundError, ValueError: no run is given, one is not a workdir, is damaged, is given twice
      or lacks its pictures, or `output` is not the name of a page. The page is not changed.
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
  # Hide log messages of libraries.
  absl_logging.set_verbosity(absl_logging.ERROR)
  # Defined here, since other commands that import this module define an --output, too.
  flags.DEFINE_string(
    "output", None, "Page to write; if unset RUN/report.html, or comparison.html for several runs."
  )
  commands.run(main)
