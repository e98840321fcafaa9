"""Tests and benchmarks an accelerator in one call.

python benchmarks/accelerator.py [--smoke] [--seconds=480] [--output=accelerator.jsonl]
  [--parts=machine,golden,unet,generators,segmenter,pytorch,main_job,profile]

This package need not be installed. A part that lacks another package reports that it was not
measured. `accelerator.md` explains how to run it on a machine without a network, and what each row
means.

Each part runs in its own process, the most important ones first, so that a crash affects one part
only. Rows are printed and appended to `--output` as JSON objects as soon as they are measured. At
the end, all of them are printed as a table and written beside it with the suffix `.md`. Messages of
the parts go to `.log`, and profiles to a folder of the same name. After `--seconds`, remaining
parts are skipped; every part reserves time for those after it.

`--smoke` runs every part in its smallest form, on a CPU in two minutes. It tests that every row can
be measured; its numbers do not describe speed.

Exit status: 1 if a row failed; 0 if each was measured, skipped for lack of time, or not measured
because a package or a device is missing.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from common import command_line
from on_device import rows

ROOT = Path(__file__).resolve().parents[1]
# Part -> seconds of `SECONDS` that earlier parts reserve for it.
PARTS = {
  "machine": 45,
  "golden": 65,
  "unet": 70,
  "generators": 140,
  "segmenter": 25,
  "pytorch": 50,
  "main_job": 55,
  "profile": 30,
}
SECONDS = 480.0
LEAST_SECONDS = 3.0  # A part with less time left is skipped.
# Leaves memory for PyTorch, since JAX would otherwise allocate most of it.
ENVIRONMENTS = {"pytorch": {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}}
WHOLE = "the whole part"


def environment(part: str, cache: str, smoke: bool) -> dict[str, str]:
  """Returns a part's environment: it finds this checkout, and parts share compiled programs."""
  given = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
  paths = [*map(str, (ROOT, ROOT / "benchmarks", ROOT / "tests")), *map(os.path.abspath, given)]
  shared = {"JAX_COMPILATION_CACHE_DIR": cache}
  if smoke:  # Compiling takes nearly all of the time.
    shared["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
  always = {"PYTHONPATH": os.pathsep.join(paths), **ENVIRONMENTS.get(part, {})}
  return shared | os.environ | always


def run_part(part: str, output: Path, seconds: float, cache: str, smoke: bool) -> None:
  """Runs a part in its own process; writes its duration, or the reason why it ended.

  Args:
    part: its name.
    output: the file of rows.
    seconds: the time limit, after which it is killed.
    cache: folder of compiled programs.
    smoke: whether to run its smallest form.
  """
  start, until = time.perf_counter(), time.time() + seconds
  report = rows.Report(part, output, until)
  command = [sys.executable, "-m", "on_device", part, str(output), str(until)]
  command += ["--smoke"] if smoke else []
  log = output.with_suffix(".log")
  with log.open("a") as errors:
    errors.write(f"--- {part} ---\n")
    errors.flush()
    process = subprocess.Popen(
      command, env=environment(part, cache, smoke), stderr=errors, start_new_session=True
    )
    status = wait(process, seconds)
  if status is None:
    where = f"stopped after {seconds:.0f} s, at the time limit; last line of the log: "
    report.add(WHOLE, None, note=rows.SKIPPED + where + last_line(log))
  elif status:
    report.add(WHOLE, None, note=f"{rows.FAILED}{ending(status)}: {last_line(log)}")
  else:
    report.add(WHOLE, time.perf_counter() - start, "s", "including start and compilation")


def wait(process: subprocess.Popen, seconds: float) -> int | None:
  """Waits for a process and returns its status, or None if it exceeded the time limit."""
  try:
    return process.wait(seconds)
  except subprocess.TimeoutExpired:
    return None
  finally:
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)  # With its children.
      process.wait()


def ending(status: int) -> str:
  """Describes an exit status: a number, or the signal that ended the process."""
  return f"exit status {status}" if status > 0 else f"killed by {signal.Signals(-status).name}"


def last_line(log: Path) -> str:
  """Returns the last non-empty line of a log."""
  lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
  return lines[-1].strip()[: rows.MOST_WORDS]


def time_for(later: Sequence[str], left: float, scale: float) -> float:
  """Returns the seconds that a part may take: those left, minus those reserved for later parts.

  Args:
    later: the parts after it.
    left: the seconds left.
    scale: a factor for the times in `PARTS`.
  """
  return left - scale * sum(PARTS[name] for name in later)


def make_parser() -> argparse.ArgumentParser:
  """Defines the flags."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--smoke", action="store_true", help="Run every part in its smallest form.")
  parser.add_argument(
    "--seconds",
    type=command_line.seconds,
    default=SECONDS,
    help="Time limit; the remaining parts are skipped.",
  )
  parser.add_argument(
    "--output", type=Path, default=Path("accelerator.jsonl"), help="File for the rows."
  )
  parser.add_argument(
    "--parts",
    type=command_line.names(PARTS),
    default=list(PARTS),
    help="Parts to run, comma-separated.",
  )
  return parser


def main() -> int:
  """Runs the parts and prints the table; returns the exit status."""
  arguments = make_parser().parse_args()
  start, output = time.monotonic(), arguments.output.resolve()
  output.parent.mkdir(parents=True, exist_ok=True)
  output.touch()
  offset = output.stat().st_size
  scale = min(1.0, arguments.seconds / SECONDS)
  try:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
      for number, part in enumerate(arguments.parts, 1):
        left = arguments.seconds - (time.monotonic() - start)
        seconds = time_for(arguments.parts[number:], left, scale)
        if seconds < LEAST_SECONDS:
          report = rows.Report(part, output, 0)
          report.add(WHOLE, None, note=f"{rows.SKIPPED}no time is left")
          continue
        run_part(part, output, seconds, cache, arguments.smoke)
  finally:
    found = rows.read(output, offset)
    table = rows.table(found)
    output.with_suffix(".md").write_text(table)
    print(f"\n{table}", flush=True)
  return int(any(map(rows.has_failed, found)))


if __name__ == "__main__":
  sys.exit(main())
