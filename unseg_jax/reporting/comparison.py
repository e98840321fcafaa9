"""Several runs side by side in one HTML page, made of the same parts as the report of one.

Every run has a colour, which is the same in all charts. What a run lacks is named, not left out.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unseg_jax.reporting import report, tables
from unseg_jax.reporting.charts import chart, series_style, stage_curves
from unseg_jax.reporting.contents import (
  SEARCH,
  Prediction,
  ReportContents,
  collect,
  configured_pictures,
  read_config,
)
from unseg_jax.reporting.html_parts import (
  bar,
  empty,
  image,
  lead,
  metric_label,
  page,
  sample_pairs,
  text,
  write_page,
)
from unseg_jax.runtime import workdir

SAMPLES = 8  # Of each run: enough to see what its segmenter learnt from, beside those of others.
ABSENT = "–"
LOWER_IS_BETTER = frozenset({"mae"})


def write(directories: Sequence[Path], path: Path) -> None:
  """Writes the page that compares runs, whole or not at all; a page there before is replaced.

  Each run's segmenter is tried on the pictures that any of the runs lists for its report.

  Args:
    directories: the workdirs of the runs.
    path: where the page goes.

  Raises:
    FileNotFoundError, ValueError: a folder is no workdir, is given twice or is damaged, or the
      pictures are not there. The first two are found before any work is done.
    OSError: the page cannot be written.
  """
  configs = [read_config(directory) for directory in directories]
  names = _names(directories)
  listed = [picture for folder in directories for picture in configured_pictures(folder)]
  # The same file may be listed by different names.
  shown = list({picture.resolve(): picture for picture in listed}.values())
  runs = {
    name: collect(directory, shown, min(SAMPLES, config["report"]["samples"]))
    for name, directory, config in zip(names, directories, configs, strict=True)
  }
  write_page(render(runs), path)


def _names(directories: Sequence[Path]) -> list[str]:
  """Calls each run by its folder's name, or by its path where others have the same name."""
  resolved = [directory.resolve() for directory in directories]
  for i, directory in enumerate(directories):
    if resolved[i] in resolved[:i]:
      raise ValueError(f"{directory} is given twice; expected runs that differ")
  names = [path.name for path in resolved]
  return [
    name if names.count(name) == 1 else str(directory)
    for name, directory in zip(names, directories, strict=True)
  ]


def render(runs: Mapping[str, ReportContents]) -> str:
  """Returns the text of one self-contained HTML page that shows runs side by side.

  The same runs give the same text. Predictions of the same name are taken to be of one picture.

  Args:
    runs: what each run found, by what the page calls the run.

  Raises:
    ValueError: the contents are not as `ReportContents` describes them, see `report.render`.
  """
  sections = {
    "Runs": _runs(runs),
    "Settings": _settings(runs),
    "Direction": _direction(runs),
    "Synthetic set": _samples(runs),
    "Filters": _filters(runs),
    "Losses": _curves(runs),
    "Metrics": _metrics(runs),
    "Predictions": _predictions(runs),
  }
  return page(f"{len(runs)} runs side by side", sections)


# Sections, in the order of the page. Each returns HTML.


def _runs(runs: Mapping[str, ReportContents]) -> str:
  rows = (
    f'<tr><th scope="row">{_label(runs, name)}</th><td>{text(contents.title)}</td>'
    f"<td>{text(_state(contents))}</td></tr>"
    for name, contents in runs.items()
  )
  return (
    '<div class="card scrolls"><table class="listing"><thead><tr><th scope="col">Run</th>'
    '<th scope="col">Experiment</th><th scope="col">State</th></tr></thead>'
    f"<tbody>{''.join(rows)}</tbody></table></div>"
  )


def _state(contents: ReportContents) -> str:
  """Names what a run lacks and the stages that make it."""
  there = {
    "direction (stage search)": len(contents.direction_picture),
    "synthetic set (stage generate)": len(contents.samples) or len(contents.filters),
    "segmenter (stage train)": len(contents.predictions) or len(contents.curves.keys() - {SEARCH}),
    "metrics (stage evaluate)": len(contents.metrics),
  }
  missing = ", ".join(part for part, count in there.items() if not count)
  return f"Lacks {missing}" if missing else "Complete"


def _settings(runs: Mapping[str, ReportContents]) -> str:
  settings = [workdir.flatten(contents.config) for contents in runs.values()]
  keys = dict.fromkeys(key for run in settings for key in run)
  rows = [
    (key, values)
    for key in keys
    for values in [[text(run.get(key, ABSENT)) for run in settings]]
    if len(set(values)) > 1
  ]
  if not rows:
    return empty("The runs have the same settings.")
  body = (
    f'<tr><th scope="row">{_breakable(key)}</th>'
    f"{''.join(f'<td>{value}</td>' for value in values)}</tr>"
    for key, values in rows
  )
  same = len(keys) - len(rows)
  return (
    f"{lead(f'Those that differ between the runs; {same} others are the same.')}"
    f'<div class="card scrolls"><table class="settings">{_head(runs, "Setting")}'
    f"<tbody>{''.join(body)}</tbody></table></div>"
  )


def _direction(runs: Mapping[str, ReportContents]) -> str:
  return _side_by_side(runs, report.DIRECTION_LEAD, report.direction_views, report.NO_DIRECTION)


def _samples(runs: Mapping[str, ReportContents]) -> str:
  def pairs(contents: ReportContents) -> str:
    if not contents.samples:
      return ""
    return f'<div class="samples">{sample_pairs(contents.samples)}</div>'

  return _side_by_side(runs, "Generated pictures, each beside its mask.", pairs, report.NO_SAMPLES)


def _filters(runs: Mapping[str, ReportContents]) -> str:
  """A card per filter, and in it a bar per run."""
  filters = dict.fromkeys(name for contents in runs.values() for name in contents.filters)
  if not filters:
    return empty(report.NO_FILTERS)
  cards = []
  for name in filters:
    bars = (
      f'<div class="{_style(runs, run)}"><dt>{text(run)}</dt>'
      f"{bar(name, contents.filters.get(name, math.nan))}</div>"
      for run, contents in runs.items()
    )
    cards.append(
      f'<div class="card"><h3>{text(name)}</h3><dl class="bars">{"".join(bars)}</dl></div>'
    )
  return f'{lead(report.FILTERS_LEAD)}<div class="charts">{"".join(cards)}</div>'


def _curves(runs: Mapping[str, ReportContents]) -> str:
  """For each stage a chart per quantity, and in it a curve per run."""
  # stage -> quantity -> run -> curve
  stages: dict[str, dict[str, dict[str, Any]]] = {}
  for run, contents in runs.items():
    for stage, columns in contents.curves.items():
      quantities = stages.setdefault(stage, {})
      for quantity, curve in stage_curves(stage, columns).items():
        quantities.setdefault(quantity, {})[run] = curve
  if not stages:
    return empty(report.NO_CURVES)
  numbers = {run: i for i, run in enumerate(runs)}
  parts = [lead("As logged, without smoothing; beside each run stands its last value.")]
  for stage, quantities in stages.items():
    charts = "".join(
      chart(f"{stage}: {quantity} of each run by step", curves, numbers, quantity)
      for quantity, curves in quantities.items()
    )
    charts = f'<div class="charts">{charts}</div>' if charts else empty("Nothing was logged.")
    parts.append(f"<h3>{text(stage)}</h3>{charts}")
  return "".join(parts)


def _metrics(runs: Mapping[str, ReportContents]) -> str:
  """A row per data set and metric, a column per run."""
  keys = dict.fromkeys(
    (data_set, metric)
    for contents in runs.values()
    for data_set, values in contents.metrics.items()
    for metric in values
  )
  if not keys:
    return empty(tables.NO_METRICS)
  # The metrics of a data set stay together, though a run may bring one that others lack.
  groups: dict[str, list[str]] = {}
  for data_set, metric in keys:
    groups.setdefault(data_set, []).append(metric)
  bodies = []
  for data_set, metrics in groups.items():
    rows = (
      f'<tr><th scope="row">{metric_label(metric)}</th>{_metric_cells(runs, data_set, metric)}</tr>'
      for metric in metrics
    )
    bodies.append(
      f'<tbody><tr class="group"><th scope="rowgroup" colspan="{len(runs) + 1}">{text(data_set)}'
      f"</th></tr>{''.join(rows)}</tbody>"
    )
  sentence = f"{report.METRICS_LEAD} The best of each row is marked."
  if any(data_set in contents.reference for contents in runs.values() for data_set in groups):
    sentence += " Small numbers are published ones."
  return (
    f'{lead(sentence)}<div class="card scrolls"><table class="metrics compared">'
    f"{_head(runs, 'Metric')}{''.join(bodies)}</table></div>"
  )


def _metric_cells(runs: Mapping[str, ReportContents], data_set: str, metric: str) -> str:
  values = [contents.metrics.get(data_set, {}).get(metric) for contents in runs.values()]
  marked = best(values, metric in LOWER_IS_BETTER)
  cells = []
  for i, (value, contents) in enumerate(zip(values, runs.values(), strict=True)):
    shown = ABSENT if value is None else f"{value:.4f}"
    shown = f'<strong class="mark">{shown}</strong>' if i in marked else shown
    published = contents.reference.get(data_set, {}).get(metric)
    small = "" if published is None else f"<small>{published:.4f}</small>"
    cells.append(f"<td>{shown}{small}</td>")
  return "".join(cells)


def best(values: Sequence[float | None], lower: bool) -> set[int]:
  """Returns the indices of the best numbers.

  Args:
    values: any of them may be missing, or NaN, which is never best.
    lower: whether lower is better.

  Returns:
    More than one index for equals; none if there is nothing to compare: fewer than two numbers,
    or all of them equal.
  """
  numbers = {i: x for i, x in enumerate(values) if x is not None and not math.isnan(x)}
  if len(set(numbers.values())) < 2:
    return set()
  winner = (min if lower else max)(numbers.values())
  return {i for i, x in numbers.items() if x == winner}


def _predictions(runs: Mapping[str, ReportContents]) -> str:
  """A card per picture, and in it the picture and what each run makes of it."""
  found = {
    run: {prediction.name: prediction for prediction in contents.predictions}
    for run, contents in runs.items()
  }
  names = dict.fromkeys(name for predictions in found.values() for name in predictions)
  if not names:
    return empty(report.NO_PREDICTIONS)
  cards = []
  for name in names:
    first = next(predictions[name] for predictions in found.values() if name in predictions)
    picture = image(report.prediction_views(first)["Picture"][0], f"Picture {name}")
    figures = [f"<figure><figcaption>Picture</figcaption>{picture}</figure>"]
    figures += [
      f"<figure><figcaption>{_label(runs, run)}</figcaption>"
      f"{_verdict(run, predictions.get(name))}</figure>"
      for run, predictions in found.items()
    ]
    cards.append(
      f'<article class="card"><h3>{text(name)}</h3>'
      f'<div class="verdicts">{"".join(figures)}</div></article>'
    )
  sentence = "Each run's segmenter on the same pictures: the overlay, and below it the probability."
  return lead(sentence) + "".join(cards)


def _verdict(run: str, prediction: Prediction | None) -> str:
  """What a run says of a picture."""
  if prediction is None:
    return empty("No segmenter was trained.")
  views = report.prediction_views(prediction)
  if "Overlay" not in views:
    return empty(report.NOT_FINITE)
  return "".join(
    image(views[name][0], f"{name} of {prediction.name} by {run}", views[name][1])
    for name in ("Overlay", "Probability")
  )


# Small parts.


def _side_by_side(
  runs: Mapping[str, ReportContents],
  sentence: str,
  view: Callable[[ReportContents], str],
  nothing: str,
) -> str:
  """A card per run with what `view` gives, or with what to say if that is nothing."""
  figures = (
    f'<figure class="card"><figcaption>{_label(runs, name)}</figcaption>'
    f"{view(contents) or empty(nothing)}</figure>"
    for name, contents in runs.items()
  )
  return f'{lead(sentence)}<div class="runs">{"".join(figures)}</div>'


def _head(runs: Mapping[str, ReportContents], first: str) -> str:
  """The head of a table with a column per run."""
  columns = "".join(f'<th scope="col">{_label(runs, name)}</th>' for name in runs)
  return f'<thead><tr><th scope="col">{first}</th>{columns}</tr></thead>'


def _label(runs: Mapping[str, ReportContents], name: str) -> str:
  """A run's name beside its colour."""
  return f'<span class="label {_style(runs, name)}"><i></i><span>{text(name)}</span></span>'


def _breakable(key: str) -> str:
  """A setting's dotted name, with leave to break it between its words."""
  return text(key).replace(".", ".<wbr>").replace("_", "_<wbr>")


def _style(runs: Mapping[str, ReportContents], name: str) -> str:
  return series_style(list(runs).index(name))
