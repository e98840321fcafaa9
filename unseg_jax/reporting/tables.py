"""Tables as text or Markdown: the metrics of several data sets, and the restarts of a search.

In the table of metrics, each row is a data set and each column a metric. Published scores and
baselines that ignore the image have their own rows below their data set.
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
HEADLINE = ("miou", "iou", "background_iou", "accuracy")  # For a first look, in this order.
LOWER_IS_BETTER = frozenset({"mae"})
NO_METRICS = "No data set was evaluated."

Metrics = Mapping[str, Mapping[str, float]]


class Score(NamedTuple):
  """A score of a run, the published score if there is one, and whether no run scores better."""

  value: float | None
  published: float | None
  best: bool


def metrics_table(
  metrics: Metrics,
  reference: Metrics | None = None,
  style: str = "text",
  baselines: Mapping[str, Metrics] | None = None,
) -> str:
  """Formats metrics as one table: a row for each data set, aligned columns, 4 decimals.

  Args:
    metrics: by data set, its metrics by name.
    reference: by data set, published metrics by name, in a row below the data set. Data sets
      without a row in `metrics` are left out.
    style: "text" or "markdown".
    baselines: by data set, the metrics of each baseline, in a row below the data set.

  Returns:
    The lines of the table, without a final line break. A missing metric is shown as "-". Without
    data sets, a sentence that says so.

  Raises:
    ValueError: the style is unknown.
  """
  if style not in ("text", "markdown"):
    raise ValueError(f"style is {style!r}; use text or markdown")
  if not metrics:
    return NO_METRICS
  return "\n".join(_lines(metric_rows(metrics, reference, baselines), style))


def scores(runs: Sequence[tuple[Metrics, Metrics]]) -> dict[str, dict[str, list[Score]]]:
  """Returns the metrics of several runs side by side.

  Args:
    runs: for each run, its metrics and the published metrics, as in `metrics_table`.

  Returns:
    By data set and metric, the score of each run.
  """
  table: dict[str, dict[str, list[Score]]] = {}
  for data_set, metric in [(d, m) for metrics, _ in runs for d in metrics for m in metrics[d]]:
    values = [metrics.get(data_set, {}).get(metric) for metrics, _ in runs]
    marked = best(values, metric in LOWER_IS_BETTER)
    # The metrics of a data set stay together, even if a later run adds one.
    table.setdefault(data_set, {})[metric] = [
      Score(value, reference.get(data_set, {}).get(metric), i in marked)
      for i, (value, (_, reference)) in enumerate(zip(values, runs, strict=True))
    ]
  return table


def headline(
  metrics: Mapping[str, float], baselines: Metrics
) -> list[tuple[str, float, dict[str, float]]]:
  """Picks the metrics of a data set to show first, each with the scores of the baselines.

  Args:
    metrics: of a segmenter on one data set, by name.
    baselines: the metrics of each baseline on that data set.

  Returns:
    Name, score, and scores by baseline, of the metrics of `HEADLINE`; of all metrics if the data
    set has none of these.
  """
  names = [name for name in HEADLINE if name in metrics] or list(metrics)
  return [
    (name, metrics[name], {b: row[name] for b, row in baselines.items() if name in row})
    for name in names
  ]


def best(values: Sequence[float | None], lower: bool) -> set[int]:
  """Returns the indices of the best numbers.

  Args:
    values: numbers; None is a missing number. NaN is never best.
    lower: whether lower is better.

  Returns:
    The indices of all equal best numbers. Empty if fewer than two numbers are given, or if all are
    equal.
  """
  numbers = {i: x for i, x in enumerate(values) if x is not None and not math.isnan(x)}
  if len(set(numbers.values())) < 2:
    return set()
  winner = (min if lower else max)(numbers.values())
  return {i for i, x in numbers.items() if x == winner}


def _lines(cells: list[list[str]], style: str) -> list[str]:
  """Aligns cells, header first: the first column to the left, the others to the right."""
  if style == "markdown":
    cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
  header, *rows = cells
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  if style == "markdown":
    # A Markdown rule has at least three characters; a colon aligns its column to the right.
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
  """Returns the label of a metric and its subscript, which may be empty."""
  label, _, index = METRIC_LABELS.get(name, name).partition("_")
  return label, index.replace("beta", "β")


def restarts_table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Formats the scores of a search's restarts: a row for each restart, the chosen one marked.

  Args:
    rows: for each restart, `restart` (its number), `chosen`, and its scores by name.
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
  """Returns the cells of the table, header first; see `metrics_table`."""
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
  """Returns the metrics that a table shows, in the order of their first occurrence."""
  shown = [*metrics.values(), *(reference[name] for name in metrics if name in reference)]
  return list(dict.fromkeys(name for values in shown for name in values))


def _numbers(values: Mapping[str, float], names: list[str]) -> list[str]:
  return [f"{values[name]:.4f}" if name in values else "-" for name in names]
