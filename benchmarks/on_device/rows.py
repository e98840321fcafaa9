"""The rows that `accelerator.py` finds: written one by one, as soon as they are there.

A row is a dict of `part`, `what` was measured, its `value` (a number, a word, or None), `unit` and
`note`. The note of a row without a result begins with one of the words below. Nothing but the
standard library is needed.
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
PATIENCE = 0.6  # The share of the time left that programs may take to compile before they run.

Row = dict[str, Any]


class NotMeasured(Exception):
  """Something cannot be measured here, and nothing is wrong; the message says why."""


@dataclasses.dataclass(frozen=True)
class Report:
  """Where the rows of a part go.

  Attributes:
    part: its name.
    path: the file that rows are appended to, a JSON object a line.
    until: `time.time()` after which no measurement begins.
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
    # In one piece, for measurements may run in threads.
    sys.stdout.write(f"{' | '.join(cells(row))}\n")
    sys.stdout.flush()

  def compare(self, what: str, apart: float, tolerance: float, unit: str = "") -> None:
    """Writes how far results are apart; beyond the tolerance it is a failure."""
    note = f"within the tolerance of {tolerance:g}"
    if not apart <= tolerance:
      note = f"{FAILED}beyond the tolerance of {tolerance:g}"
    self.add(what, float(apart), unit, note)

  def attempt(self, what: str, measure: Callable[..., Any], *arguments: Any) -> Any:
    """Runs a measurement that writes its own rows; what it raises costs one more row.

    Args:
      what: names the row, should there be no other.
      measure: the function.
      arguments: of it.

    Returns:
      What the function returns; None if it raised, or was skipped.
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
    """Attempts several things at once, in threads: most programs take much time to compile.

    Args:
      work: what each is, as for `attempt`, and the function.
      share: of the time that is left, how much all of them may take.

    Returns:
      What came of those that succeeded in that time, by name, in the same order; each of the others
      costs a row.
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
  """The package that is not installed, if that is what the error says, and it is not ours."""
  name = (getattr(error, "name", None) or "") if isinstance(error, ModuleNotFoundError) else ""
  package = name.partition(".")[0]
  if not package or package in OUR_OWN or importlib.util.find_spec(package):
    return None
  return package


def require(*packages: str) -> None:
  """Raises a NotMeasured that names the packages which are not installed, if there are any."""
  missing = [package for package in packages if importlib.util.find_spec(package) is None]
  if missing:
    raise NotMeasured(f"needs {', '.join(missing)}")


def describe(error: BaseException) -> str:
  """An exception's type and the first line of its message."""
  lines = str(error).strip().splitlines()
  return f"{type(error).__name__}: {lines[0][:MOST_WORDS] if lines else 'no message'}"


def read(path: Path, offset: int = 0) -> list[Row]:
  """The rows of a file from a byte on."""
  with path.open("rb") as file:
    file.seek(offset)
    return [json.loads(line) for line in file]


def has_failed(row: Mapping[str, Any]) -> bool:
  """Whether the row tells of a failure."""
  return row["note"].startswith(FAILED)


def cells(row: Mapping[str, Any]) -> list[str]:
  """The row as it is shown, in the order of `FIELDS`."""
  value = row["value"]
  if isinstance(value, float):
    value = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
  shown = {"value": "-" if value is None else value}
  return [str(shown.get(name, row[name])).replace("|", "/") for name in FIELDS]


def table(rows: Iterable[Mapping[str, Any]]) -> str:
  """All rows as a Markdown table; the part's name stands in its first row alone."""
  lines = [f"| {' | '.join(FIELDS)} |", "| --- | --- | ---: | --- | --- |"]
  before = None
  for row in rows:
    part, *others = cells(row)
    lines.append(f"| {' | '.join(['' if part == before else part, *others])} |")
    before = part
  return "\n".join(lines) + "\n"
