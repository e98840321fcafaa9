"""One table of the metrics of several data sets, as text, Markdown or JSON.

A row is a data set, a column a metric. Where the published numbers of a data set are given, they
stand in a row of their own below it.
"""

from collections.abc import Mapping
from typing import Any

METRIC_LABELS = {
  "accuracy": "Accuracy",
  "iou": "IoU",
  "f_beta": "F_beta",
  "f_max": "F_max",
  "mae": "MAE",
  "s_measure": "S-measure",
  "e_measure": "E-measure",
  "weighted_f": "Weighted F",
}
NO_METRICS = "No data set was evaluated."

Metrics = Mapping[str, Mapping[str, float]]


def metrics_table(metrics: Metrics, reference: Metrics | None = None, style: str = "text") -> str:
  """Lays metrics out as one table: a row per data set, aligned columns, 4 decimals.

  Args:
    metrics: for each data set its metrics by name.
    reference: for any of the data sets the published metrics by name. Each makes a row below that
      of its data set; data sets that were not evaluated are left out.
    style: "text" or "markdown".

  Returns:
    The lines of the table, without a line break at the end. A metric that a data set lacks is
    shown as "-"; without data sets, a sentence that says so.

  Raises:
    ValueError: if there is no such style.
  """
  if style not in ("text", "markdown"):
    raise ValueError(f"style is {style!r}; use text or markdown")
  if not metrics:
    return NO_METRICS
  cells = metric_rows(metrics, reference)
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
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
  return "\n".join("  ".join(line) for line in lines)


def metrics_json(metrics: Metrics, reference: Metrics | None = None) -> list[dict[str, Any]]:
  """The same table as data for a JSON file, unrounded.

  Args:
    metrics: for each data set its metrics by name.
    reference: for any of the data sets the published metrics by name.

  Returns:
    For each data set `{"data_set": name, "metrics": {...}}`, with `"reference": {...}` where given.
  """
  reference = reference or {}
  return [
    {"data_set": name, "metrics": dict(values)}
    | ({"reference": dict(reference[name])} if name in reference else {})
    for name, values in metrics.items()
  ]


def metric_rows(metrics: Metrics, reference: Metrics | None = None) -> list[list[str]]:
  """Returns the table cell by cell, its header first; see `metrics_table`."""
  reference = reference or {}
  names = _names(metrics, reference)
  rows = [["Data set", *(METRIC_LABELS.get(name, name) for name in names)]]
  for data_set, values in metrics.items():
    rows.append([data_set, *_numbers(values, names)])
    if data_set in reference:
      rows.append([f"{data_set} (reference)", *_numbers(reference[data_set], names)])
  return rows


def _names(metrics: Metrics, reference: Metrics) -> list[str]:
  """Returns the metrics of the table, each once, in the order in which they first come."""
  shown = [*metrics.values(), *(reference[name] for name in metrics if name in reference)]
  return list(dict.fromkeys(name for values in shown for name in values))


def _numbers(values: Mapping[str, float], names: list[str]) -> list[str]:
  return [f"{values[name]:.4f}" if name in values else "-" for name in names]
