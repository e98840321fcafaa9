"""Stage 5: a run as one HTML page to look at."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unseg_jax.reporting import pictures, tables
from unseg_jax.reporting.charts import chart, share_axes, stage_curves
from unseg_jax.reporting.contents import Prediction, ReportContents, Restart
from unseg_jax.reporting.html_parts import (
  bar,
  empty,
  format_number,
  image,
  lead,
  metric_label,
  note,
  page,
  sample_pairs,
  shrink,
  text,
  webp,
  write_page,
)
from unseg_jax.runtime import workdir

NO_DIRECTION = "No direction was drawn."
NO_SAMPLES = "No synthetic pairs were kept."
NO_FILTERS = "No filter was applied."
NO_CURVES = "No losses were logged."
NO_PREDICTIONS = "The segmenter was tried on no picture."


def render(contents: ReportContents) -> str:
  """Returns the report as the text of one self-contained HTML page.

  The same contents give the same text.

  Raises:
    ValueError: a picture, mask, share or curve is not as `ReportContents` describes it. Metrics,
      curves and probabilities that are not finite are no error: the page shows that they are so.
  """
  sections = {
    "Results": _headline(contents.metrics),
    "Direction": _direction(contents),
    "Synthetic set": _samples(contents.samples),
    "Filters": _filters(contents.filters),
    "Losses": _curves(contents.curves),
    "Metrics": _metrics(contents.metrics, contents.reference),
    "Predictions": _predictions(contents.predictions),
    "Config": _config(contents.config),
  }
  return page(contents.title, sections)


def write(contents: ReportContents, path: Path) -> None:
  """Writes the report to `path`, whole or not at all; a report there before is replaced.

  Raises:
    ValueError: see `render`.
    OSError: the folder of `path` cannot be made or written to.
  """
  write_page(render(contents), path)


# Reading a workdir.


# Sections, in the order of the page. Each returns HTML.


def _headline(metrics: Mapping[str, Mapping[str, float]]) -> str:
  """A tile per metric where there is one data set, else a tile per data set with its IoU."""
  if not metrics:
    return empty(tables.NO_METRICS)
  if len(metrics) == 1:
    ((data_set, values),) = metrics.items()
    sentence = f"The trained segmenter on {data_set}."
    tiles = [(metric_label(name), value, "") for name, value in values.items()]
  else:
    sentence = "IoU of the trained segmenter on each data set."
    tiles = [
      (
        text(data_set),
        values.get("iou", math.nan),
        "<br>".join(f"{metric_label(k)} {v:.4f}" for k, v in values.items() if k != "iou"),
      )
      for data_set, values in metrics.items()
    ]
  cards = (
    f'<div class="card"><dt>{label}</dt><dd>{value:.4f}<small>{details}</small></dd></div>'
    for label, value, details in tiles
  )
  return f'{lead(sentence)}<dl class="tiles">{"".join(cards)}</dl>'


def _direction(contents: ReportContents) -> str:
  views = direction_views(contents)
  if not views and not contents.restarts:
    return empty(NO_DIRECTION)
  card = f'<figure class="card"><div class="direction">{views}</div></figure>' if views else ""
  return f"{lead(DIRECTION_LEAD) if views else ''}{card}{_restarts(contents.restarts)}"


DIRECTION_LEAD = (
  "Each row is one latent, moved along the direction by 0, 2, 4 and 6, and where there are two by "
  "2, 4 and 6 along the second; its last picture is the mask that the change in brightness gives."
)


def direction_views(contents: ReportContents) -> str:
  """The animation and the picture of a direction, as far as they are there.

  Raises:
    ValueError: the animation is no WebP.
  """
  still, moving = contents.direction_picture, ""
  if contents.animation:
    moving = webp(contents.animation, "Latents that move along the direction")
    moving = f'<div class="moving">{moving}</div>'
  description = "Pictures of latents moved along the direction, and their masks"
  return moving + (image(still, description) if np.size(still) else "")


def _restarts(restarts: Sequence[Restart]) -> str:
  """A row of scores per search, and below the table their pictures side by side."""
  if not restarts:
    return ""
  names = dict.fromkeys(name for restart in restarts for name in restart.scores)
  head = "".join(f'<th scope="col">{text(_words(name))}</th>' for name in names)
  rows, figures = [], []
  for restart in restarts:
    label = text(restart.name) + (' <span class="mark">chosen</span>' if restart.chosen else "")
    scores = (restart.scores.get(name) for name in names)
    cells = "".join(f"<td>{'-' if x is None else format_number(x, 4)}</td>" for x in scores)
    rows.append(f'<tr><th scope="row">{label}</th>{cells}</tr>')
    if np.size(restart.picture):
      view = image(restart.picture, f"Direction of search {restart.name}")
      figures.append(f'<figure class="card"><figcaption>Search {label}</figcaption>{view}</figure>')
  sentence = (
    f"{len(restarts)} searches from different starts, ranked by numbers that need no labels; "
    "the run uses the direction of the one that is marked."
  )
  return (
    f'<h3 class="follows">Searches</h3>{lead(sentence)}<div class="card scrolls">'
    f'<table class="metrics"><thead><tr><th scope="col">Search</th>{head}</tr></thead>'
    f'<tbody>{"".join(rows)}</tbody></table></div><div class="runs">{"".join(figures)}</div>'
  )


def _words(name: str) -> str:
  """Returns the name of a variable as words."""
  return name.replace("_", " ").capitalize()


def _samples(samples: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
  if not samples:
    return empty(NO_SAMPLES)
  sentence = "What the segmenter learns from: generated pictures, each beside its mask."
  return f'{lead(sentence)}<div class="card samples">{sample_pairs(samples)}</div>'


def _filters(filters: Mapping[str, float]) -> str:
  if not filters:
    return empty(NO_FILTERS)
  rows = (
    f"<div{' class=all' if name == 'all' else ''}><dt>{text(name)}</dt>{bar(name, value)}</div>"
    for name, value in filters.items()
  )
  return f'{lead(FILTERS_LEAD)}<div class="card"><dl class="bars">{"".join(rows)}</dl></div>'


FILTERS_LEAD = "Share of the candidates that each filter accepts."


def _curves(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
  if not curves:
    return empty(NO_CURVES)
  sentence = "As logged, without smoothing; beside each name stands the last value."
  return lead(sentence) + "".join(
    f"<h3>{text(stage)}</h3>{_charts(stage, columns)}" for stage, columns in curves.items()
  )


def _charts(stage: str, columns: Mapping[str, Sequence[float]]) -> str:
  """The charts of one stage; curves of very different range do not share one."""
  curves = stage_curves(stage, columns)
  if not curves:
    return empty("Nothing was logged.")
  series = {name: i for i, name in enumerate(curves)}
  charts = (
    chart(f"{stage}: {', '.join(group)} by step", group, series) for group in share_axes(curves)
  )
  return f'<div class="charts">{"".join(charts)}</div>'


METRICS_LEAD = "Means over the pictures of each data set; 1 is perfect, 0 for MAE."


def _metrics(metrics: tables.Metrics, reference: tables.Metrics) -> str:
  if not metrics:
    return empty(tables.NO_METRICS)
  shown = [values for name in metrics for values in (metrics[name], reference.get(name, {}))]
  names = list(dict.fromkeys(name for values in shown for name in values))
  head = "".join(f'<th scope="col">{metric_label(name)}</th>' for name in names)
  rows = (
    _metrics_row(name, metrics[name], names)
    + (_metrics_row("Published", reference[name], names, "reference") if name in reference else "")
    for name in metrics
  )
  sentence = METRICS_LEAD
  if any(name in reference for name in metrics):
    sentence += " Published numbers stand below those of the run."
  return (
    f'{lead(sentence)}<div class="card scrolls"><table class="metrics">'
    f'<thead><tr><th scope="col">Data set</th>{head}</tr></thead>'
    f"<tbody>{''.join(rows)}</tbody></table></div>"
  )


def _metrics_row(
  name: str, values: Mapping[str, float], names: Sequence[str], style: str = ""
) -> str:
  cells = "".join(f"<td>{f'{values[k]:.4f}' if k in values else '-'}</td>" for k in names)
  return f'<tr class="{style}"><th scope="row">{text(name)}</th>{cells}</tr>'


def _predictions(predictions: Sequence[Prediction]) -> str:
  if not predictions:
    return empty(NO_PREDICTIONS)
  cards = (
    f'<article class="card"><h3>{text(prediction.name)}</h3>{_views(prediction)}</article>'
    for prediction in predictions
  )
  return lead("The trained segmenter on pictures.") + "".join(cards)


def _views(prediction: Prediction) -> str:
  """A picture beside its probability, cut-out and overlay."""
  figures = (
    f"<figure>{image(view, f'{name} of {prediction.name}', style)}"
    f"<figcaption>{name}</figcaption></figure>"
    for name, (view, style) in prediction_views(prediction).items()
  )
  remark = "" if np.isfinite(prediction.probability).all() else note(NOT_FINITE)
  return f'<div class="views">{"".join(figures)}</div>{remark}'


NOT_FINITE = "Its probability is not finite, so there is no mask to show."


def prediction_views(prediction: Prediction) -> dict[str, tuple[np.ndarray, str]]:
  """Returns the views of a prediction by name, each with its CSS classes, no larger than shown.

  They are the picture, its probability, cut-out and overlay; only the picture where the
  probability is not finite.

  Raises:
    ValueError: a shape, a type or a value is not as `Prediction` describes it.
  """
  picture, probability = prediction.image, np.asarray(prediction.probability, np.float32)
  if not np.isfinite(probability).all():
    return {"Picture": (shrink(picture), "picture")}
  # Checked at full size first, as shrinking would hide a wrong shape.
  pictures.cutout(picture, probability)
  picture, probability = shrink(picture), np.clip(shrink(probability), 0, 1)
  return {
    "Picture": (picture, "picture"),
    "Probability": (np.rint(probability * 255).astype(np.uint8), "picture"),
    "Cut-out": (pictures.cutout(picture, probability), "picture chequers"),
    "Overlay": (pictures.overlay(picture, probability), "picture"),
  }


def _config(config: Mapping[str, Any]) -> str:
  rows = [
    f'<tr><th scope="row">{text(key)}</th><td>{text(value)}</td></tr>'
    for key, value in workdir.flatten(config).items()
  ]
  if not rows:
    return empty("No settings were given.")
  return (
    f'<details class="card"><summary>{len(rows)} settings that made this run</summary>'
    f'<table class="config"><tbody>{"".join(rows)}</tbody></table></details>'
  )
