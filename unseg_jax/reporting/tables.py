"""Tables as text or Markdown: the metrics of several data sets, the restarts of a search.

In that of the metrics a row is a data set, a column a metric. Where the published numbers of a data
set are given, they stand in a row of their own below it, and so do answers that look at no picture.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

METRIC_LABELS = {
  "accuracy": "Accuracy",
  "iou": "IoU",
  "f_beta": "F_beta",
  "f_max": "F_max",
  "mae": "MAE",
  "s_measure": "S-measure",
  "e_measure": "E-measure",
  "weighted_f": "Weighted F",
  "background_iou": "Background IoU",
  "miou": "mIoU",
}
LOWER_IS_BETTER = frozenset({"mae"})
NO_METRICS = "No data set was evaluated."

Metrics = Mapping[str, Mapping[str, float]]


class Score(NamedTuple):
  """A metric of a run, the published one, if any, and whether it is the best of the runs."""

  value: float | None
  published: float | None
  best: bool


def metrics_table(
  metrics: Metrics,
  reference: Metrics | None = None,
  style: str = "text",
  baselines: Mapping[str, Metrics] | None = None,
) -> str:
  """Lays metrics out as one table: a row per data set, aligned columns, 4 decimals.

  Args:
    metrics: for each data set its metrics by name.
    reference: for any of the data sets the published metrics by name. Each makes a row below that
      of its data set; data sets that were not evaluated are left out.
    style: "text" or "markdown".
    baselines: for any of the data sets the metrics of other answers by name, in rows likewise.

  Returns:
    The lines of the table, without a line break at the end. A metric that a data set lacks is
    shown as "-"; without data sets, a sentence that says so.

  Raises:
    ValueError: if the style is unknown.
  """
  if style not in ("text", "markdown"):
    raise ValueError(f"style is {style!r}; use text or markdown")
  if not metrics:
    return NO_METRICS
  return "\n".join(_lines(metric_rows(metrics, reference, baselines), style))


def scores(runs: Sequence[tuple[Metrics, Metrics]]) -> dict[str, dict[str, list[Score]]]:
  """Puts the metrics of runs side by side.

  Args:
    runs: of each its metrics and the published ones, as `metrics_table` takes them.

  Returns:
    Of each data set that a run was evaluated on, of each of its metrics, what each run reached.
  """
  table: dict[str, dict[str, list[Score]]] = {}
  for data_set, metric in [(d, m) for metrics, _ in runs for d in metrics for m in metrics[d]]:
    values = [metrics.get(data_set, {}).get(metric) for metrics, _ in runs]
    marked = best(values, metric in LOWER_IS_BETTER)
    # The metrics of a data set stay together, though a run may bring one that others lack.
    table.setdefault(data_set, {})[metric] = [
      Score(value, reference.get(data_set, {}).get(metric), i in marked)
      for i, (value, (_, reference)) in enumerate(zip(values, runs, strict=True))
    ]
  return table


def best(values: Sequence[float | None], lower: bool) -> set[int]:
  """Returns the indices of the best numbers.

  Args:
    values: any of them may be missing, or NaN, which is never best.
    lower: whether lower is better.

  Returns:
    More than one index for equals; none if nothing can be compared: fewer than two numbers, or
    all of them equal.
  """
  numbers = {i: x for i, x in enumerate(values) if x is not None and not math.isnan(x)}
  if len(set(numbers.values())) < 2:
    return set()
  winner = (min if lower else max)(numbers.values())
  return {i for i, x in numbers.items() if x == winner}


def _lines(cells: list[list[str]], style: str) -> list[str]:
  """Aligns a table's cells, the header's first: its first column left, the others right."""
  if style == "markdown":
    cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
  header, *rows = cells
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  if style == "markdown":
    # Markdown's rule needs three characters; a colon aligns its column to the right.
    widths = [max(width, 3) for width in widths]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
  else:
    rule = ["-" * width for width in widths]
  lines = [
    [line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]
    for line in (header, rule, *rows)
  ]
  if style == "markdown":
    return [f"| {' | '.join(line)} |" for line in lines]
  return ["  ".join(line).rstrip() for line in lines]


def metric_label(name: str) -> tuple[str, str]:
  """Returns a metric's name, and its index, which may be empty."""
  label, _, index = METRIC_LABELS.get(name, name).partition("_")
  return label, index.replace("beta", "β")


def restarts_table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Lays out how the restarts of a search did: a row per restart, the chosen one marked.

  Args:
    rows: of each restart `restart` (its number), `chosen`, and its scores by name.
  """
  names = [name for name in rows[0] if name not in ("restart", "chosen")]
  cells = [["Restart", *(name.capitalize() for name in names), ""]]
  for row in rows:
    numbers = [f"{row[name]:.4f}" for name in names]
    cells.append([str(row["restart"]), *numbers, "chosen" if row["chosen"] else ""])
  return "\n".join(_lines(cells, "text"))


def metric_rows(
  metrics: Metrics,
  reference: Metrics | None = None,
  baselines: Mapping[str, Metrics] | None = None,
) -> list[list[str]]:
  """Returns the table cell by cell, its header first; see `metrics_table`."""
  reference, baselines = reference or {}, baselines or {}
  names = metric_names(metrics, reference)
  rows = [["Data set", *(METRIC_LABELS.get(name, name) for name in names)]]
  for data_set, values in metrics.items():
    rows.append([data_set, *_numbers(values, names)])
    if data_set in reference:
      rows.append([f"{data_set} (reference)", *_numbers(reference[data_set], names)])
    for answer, numbers in baselines.get(data_set, {}).items():
      rows.append([f"{data_set} ({answer})", *_numbers(numbers, names)])
  return rows


def metric_names(metrics: Metrics, reference: Metrics) -> list[str]:
  """Returns the metrics that a table shows, each once, in the order in which they first come."""
  shown = [*metrics.values(), *(reference[name] for name in metrics if name in reference)]
  return list(dict.fromkeys(name for values in shown for name in values))


def _numbers(values: Mapping[str, float], names: list[str]) -> list[str]:
  return [f"{values[name]:.4f}" if name in values else "-" for name in names]
