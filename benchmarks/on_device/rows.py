"""The rows of `accelerator.py`, each written as soon as it is measured.

A row is a dict of `part`, `what` was measured, its `value` (a number, a word, or None), `unit` and
`note`. The note of a row without a result begins with one of the words below. This module needs
only the standard library.
"""

import concurrent.futures
import dataclasses
import importlib.util
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

FAILED, MISSING, SKIPPED = "failed: ", "not measured: ", "skipped: "
FIELDS = ("part", "what", "value", "unit", "note")
OUR_OWN = ("unseg_jax", "checkpoints_convert", "on_device", "twins")
MOST_WORDS = 200  # Characters of an error's message.
MOST_THREADS = 8
PATIENCE = 0.6  # The share of the remaining time for compiling programs before they run.

Row = dict[str, Any]


class NotMeasured(Exception):
  """Something cannot be measured on this machine; this is not a failure."""


@dataclasses.dataclass(frozen=True)
class Report:
  """The output of a part.

  Attributes:
    part: the part's name.
    path: the file to which rows are appended, one JSON object per line.
    until: the `time.time()` after which no measurement begins.
  """

  part: str
  path: Path
  until: float

  def add(self, what: str, value: float | str | None, unit: str = "", note: str = "") -> None:
    """Writes a row and prints it; a number that is not finite is a failure."""
    if isinstance(value, float) and not math.isfinite(value):
      value, note = None, f"{FAILED}the value is {value}"
    row = dict(zip(FIELDS, (self.part, what, value, unit, note), strict=True))
    with self.path.open("a") as file:
      file.write(json.dumps(row) + "\n")
    # One write, since measurements may run in threads.
    sys.stdout.write(f"{' | '.join(cells(row))}\n")
    sys.stdout.flush()

  def compare(self, what: str, apart: float, tolerance: float, unit: str = "") -> None:
    """Writes the difference between results; a difference above the tolerance is a failure."""
    note = f"within the tolerance of {tolerance:g}"
    if not apart <= tolerance:
      note = f"{FAILED}beyond the tolerance of {tolerance:g}"
    self.add(what, float(apart), unit, note)

  def attempt(self, what: str, measure: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a measurement that writes its own rows; an exception becomes a row.

    Args:
      what: the name of that row.
      measure: the function.
      arguments: its arguments.

    Returns:
      The function's result; None if it raised an exception or was skipped.
    """
    if time.time() > self.until:
      self.add(what, None, note=f"{SKIPPED}the part's time is used up")
      return None
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)
    try:
      return measure(*arguments)
    except NotMeasured as reason:
      self.add(what, None, note=f"{MISSING}{reason}")
    except Exception as error:
      if needed := missing_package(error):
        self.add(what, None, note=f"{MISSING}needs {needed}")
      else:
        traceback.print_exc()
        self.add(what, None, note=FAILED + describe(error))
    return None

  def attempt_together(
    self, work: Mapping[str, Callable[[], Any]], share: float = PATIENCE
  ) -> dict[str, Any]:
    """Attempts several measurements in parallel threads, since programs are slow to compile.

    Args:
      work: the name of each, as for `attempt`, and the function.
      share: the share of the remaining time that all of them together may take.

    Returns:
      The results of those that succeeded in that time, by name and in order. Each of the others
      becomes a row.
    """
    pool = concurrent.futures.ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1))
    futures = {what: pool.submit(self.attempt, what, function) for what, function in work.items()}
    patience = share * max(self.until - time.time(), 0.0)
    concurrent.futures.wait(futures.values(), patience)
    pool.shutdown(wait=False, cancel_futures=True)
    found = {}
    for what, future in futures.items():
      if future.cancelled() or not future.done():
        self.add(what, None, note=f"{SKIPPED}not done within {patience:.0f} s")
      elif (result := future.result()) is not None:
        found[what] = result
    return found


def missing_package(error: BaseException) -> str | None:
  """Returns the missing package of an import error, unless it is part of this project."""
  name = (getattr(error, "name", None) or "") if isinstance(error, ModuleNotFoundError) else ""
  package = name.partition(".")[0]
  if not package or package in OUR_OWN or importlib.util.find_spec(package):
    return None
  return package


def require(*packages: str) -> None:
  """Raises a NotMeasured that names the packages that are not installed, if any."""
  missing = [package for package in packages if importlib.util.find_spec(package) is None]
  if missing:
    raise NotMeasured(f"needs {', '.join(missing)}")


def describe(error: BaseException) -> str:
  """Returns an exception's type and the first line of its message."""
  lines = str(error).strip().splitlines()
  return f"{type(error).__name__}: {lines[0][:MOST_WORDS] if lines else 'no message'}"


def read(path: Path, offset: int = 0) -> list[Row]:
  """Reads the rows of a file from a byte offset on."""
  with path.open("rb") as file:
    file.seek(offset)
    return [json.loads(line) for line in file]


def has_failed(row: Mapping[str, Any]) -> bool:
  """Whether the row reports a failure."""
  return row["note"].startswith(FAILED)


def cells(row: Mapping[str, Any]) -> list[str]:
  """Formats a row in the order of `FIELDS`."""
  value = row["value"]
  if isinstance(value, float):
    value = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
  shown = {"value": "-" if value is None else value}
  return [str(shown.get(name, row[name])).replace("|", "/") for name in FIELDS]


def table(rows: Iterable[Mapping[str, Any]]) -> str:
  """Formats rows as a Markdown table, with each part's name in its first row only."""
  lines = [f"| {' | '.join(FIELDS)} |", "| --- | --- | ---: | --- | --- |"]
  before = None
  for row in rows:
    part, *others = cells(row)
    lines.append(f"| {' | '.join(['' if part == before else part, *others])} |")
    before = part
  return "\n".join(lines) + "\n"
