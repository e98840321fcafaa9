"""Runs one part for `accelerator.py`: `python -m on_device PART FILE UNTIL [--smoke]`.

Rows are appended to FILE. No measurement starts after `time.time()` exceeds UNTIL. If the part
fails, the exit status is 1, and the last line on stderr is the reason.
"""

import argparse
import importlib
import os
import sys
import traceback
from pathlib import Path

from on_device import rows

# Parts that start no device, so that the command they run can use all of its memory.
WITHOUT_DEVICES = ("main_job",)


def main() -> int:
  """Runs the part that the arguments name; returns the exit status."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("part", help="Part to run: a module of this folder.")
  parser.add_argument("file", type=Path, help="File to append the rows to.")
  parser.add_argument("until", type=float, help="Unix time after which nothing new is measured.")
  parser.add_argument("--smoke", action="store_true", help="Run the part in its smallest form.")
  arguments = parser.parse_args()
  report = rows.Report(arguments.part, arguments.file, arguments.until)
  try:
    if arguments.part not in WITHOUT_DEVICES:
      import jax

      from unseg_jax.runtime import parallel

      parallel.check_devices()
      jax.devices()
    importlib.import_module(f"on_device.{arguments.part}").run(report, arguments.smoke)
  except Exception as error:
    if needed := rows.missing_package(error):
      report.add("the whole part", None, note=f"{rows.MISSING}needs {needed}")
      return 0
    traceback.print_exc()
    print(rows.describe(error), file=sys.stderr, flush=True)
    return 1
  return 0


if __name__ == "__main__":
  status = main()
  sys.stdout.flush()
  os._exit(status)  # Does not wait for threads that are still compiling.
