"""Stage 5: one HTML page to look at.

`render` turns what a run found into a page that stands alone: it asks no host for anything, needs
no script, follows the reader's light or dark theme, and fits a phone. The styles are in
`report_template.html`; this file holds what the page says.
"""

import dataclasses
import html
import importlib.resources
import math
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unseg_jax import pictures, workdir
from unseg_jax.tables import METRIC_LABELS, NO_METRICS, metric_rows

# Pictures are shrunk to what a page can show: photographs as PNG would make it very large.
LONGEST_SIDE = 512

# The drawing area of a chart, in SVG units; text is larger on a phone, so the margins are wide.
CHART_WIDTH, CHART_HEIGHT = 480, 274
LEFT, RIGHT, TOP, BOTTOM = 66, 468, 12, 224
COLOURS = 5  # As many as the template has --series- variables.


@dataclasses.dataclass(frozen=True)
class Prediction:
  """A picture and what the segmenter says of it.

  Attributes:
    name: what to call the picture, such as its file name.
    image: uint8 [H, W, 3].
    probability: float32 [H, W] in [0, 1], how likely each pixel is foreground.
  """

  name: str
  image: np.ndarray
  probability: np.ndarray


@dataclasses.dataclass(frozen=True)
class ReportContents:
  """What a report shows; every part but the title may be empty, and the page then says so.

  Attributes:
    title: the page's title.
    config: the run's settings, a plain dict, nested as need be.
    direction_picture: uint8 [H, W, 3], in each row one latent at shifts 0, 2, 4, 6, and its mask.
    samples: synthetic pairs, uint8 [H, W, 3] images and bool [H, W] masks.
    filters: for each filter, and for "all" of them, the share in [0, 1] of the candidates that it
      accepts.
    curves: for each stage the columns of its log: "step", and any number of others as long.
    metrics: for each data set its metrics by name ("accuracy", "iou", "f_beta", "f_max").
    predictions: pictures that the segmenter was tried on.
  """

  title: str
  config: Mapping[str, Any]
  direction_picture: np.ndarray
  samples: Sequence[tuple[np.ndarray, np.ndarray]]
  filters: Mapping[str, float]
  curves: Mapping[str, Mapping[str, Sequence[float]]]
  metrics: Mapping[str, Mapping[str, float]]
  predictions: Sequence[Prediction]


def render(contents: ReportContents) -> str:
  """Returns the report as the text of one self-contained HTML page.

  The same contents give the same text.

  Raises:
    ValueError: a picture, mask, share or curve is not as `ReportContents` describes it. Metrics,
      curves and probabilities that are not finite are no error: the page shows that they are so.
  """
  sections = {
    "Results": _headline(contents.metrics),
    "Direction": _direction(contents.direction_picture),
    "Synthetic set": _samples(contents.samples),
    "Filters": _filters(contents.filters),
    "Losses": _curves(contents.curves),
    "Metrics": _metrics(contents.metrics),
    "Predictions": _predictions(contents.predictions),
    "Config": _config(contents.config),
  }
  links = (f'<a href="#{_identifier(name)}">{name}</a>' for name in sections)
  header = (
    "<header><p>Unsupervised segmentation from a generator</p>"
    f"<h1>{_text(contents.title)}</h1><nav>{''.join(links)}</nav></header>"
  )
  body = (
    f'<section id="{_identifier(name)}">\n<h2>{name}</h2>\n{content}\n</section>'
    for name, content in sections.items()
  )
  template = (
    importlib.resources.files(__package__).joinpath("report_template.html").read_text("utf-8")
  )
  return string.Template(template).substitute(
    title=_text(contents.title), body="\n".join([header, *body])
  )


def write(contents: ReportContents, path: Path) -> None:
  """Writes the report to `path`, whole or not at all; a report there before is replaced.

  Raises:
    ValueError: see `render`.
    OSError: the folder of `path` cannot be made or written to.
  """
  text = render(contents)
  with workdir.whole_file(path) as temporary:
    temporary.write_text(text, encoding="utf-8")


# Sections, in the order of the page. Each returns HTML.


def _headline(metrics: Mapping[str, Mapping[str, float]]) -> str:
  """A tile per metric where there is one data set, else a tile per data set with its IoU."""
  if not metrics:
    return _empty(NO_METRICS)
  if len(metrics) == 1:
    ((data_set, values),) = metrics.items()
    lead = f"The trained segmenter on {data_set}."
    tiles = [(_metric_label(name), value, "") for name, value in values.items()]
  else:
    lead = "IoU of the trained segmenter on each data set."
    tiles = [
      (
        _text(data_set),
        values.get("iou", math.nan),
        "<br>".join(f"{_metric_label(k)} {v:.4f}" for k, v in values.items() if k != "iou"),
      )
      for data_set, values in metrics.items()
    ]
  cards = (
    f'<div class="card"><dt>{label}</dt><dd>{value:.4f}<small>{details}</small></dd></div>'
    for label, value, details in tiles
  )
  return f'{_lead(lead)}<dl class="tiles">{"".join(cards)}</dl>'


def _direction(picture: np.ndarray) -> str:
  if not np.size(picture):
    return _empty("No direction was drawn.")
  lead = (
    "Each row is one latent, moved along the direction by 0, 2, 4 and 6; "
    "its last picture is the mask that the change in brightness gives."
  )
  image = _image(picture, "Pictures of latents moved along the direction, and their masks")
  return f'{_lead(lead)}<figure class="card"><div class="direction">{image}</div></figure>'


def _samples(samples: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
  if not samples:
    return _empty("No synthetic pairs were kept.")
  pairs = (
    f'<div class="pair">{_image(image, f"Synthetic picture {i}", "")}'
    f"{_image(pictures.overlay(image, mask), f'Mask of synthetic picture {i}', '')}</div>"
    for i, (image, mask) in enumerate(samples, start=1)
  )
  lead = "What the segmenter learns from: generated pictures, each beside its mask."
  return f'{_lead(lead)}<div class="card samples">{"".join(pairs)}</div>'


def _filters(filters: Mapping[str, float]) -> str:
  if not filters:
    return _empty("No filter was applied.")
  rows = (
    f"<div{' class=all' if name == 'all' else ''}><dt>{_text(name)}</dt>"
    f'<dd class="bar"><i style="width:{100 * _share(name, value):.2f}%"></i></dd>'
    f'<dd class="value">{"-" if math.isnan(value) else f"{value:.1%}"}</dd></div>'
    for name, value in filters.items()
  )
  lead = "Share of the candidates that each filter accepts."
  return f'{_lead(lead)}<div class="card"><dl class="bars">{"".join(rows)}</dl></div>'


def _share(name: str, value: float) -> float:
  """Returns a filter's share, 0 where it is NaN (no candidates), if it lies within [0, 1]."""
  if math.isnan(value):
    return 0.0
  if not 0 <= value <= 1:
    raise ValueError(
      f'filter "{name}" accepts a share of {value}, but a share lies in [0, 1]; '
      "divide the number of accepted candidates by the number of all."
    )
  return value


def _curves(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
  if not curves:
    return _empty("No losses were logged.")
  lead = "As logged, without smoothing; beside each name stands the last value."
  return _lead(lead) + "".join(
    f"<h3>{_text(stage)}</h3>{_charts(stage, columns)}" for stage, columns in curves.items()
  )


def _charts(stage: str, columns: Mapping[str, Sequence[float]]) -> str:
  """The charts of one stage; curves of very different range do not share one."""
  if "step" not in columns:
    raise ValueError(
      f'the curves of "{stage}" have the columns {list(columns)}, but "step" is missing; '
      "give the steps at which the values were logged."
    )
  arrays = {name: np.asarray(values, np.float64) for name, values in columns.items()}
  steps = arrays.pop("step")
  for name, values in arrays.items():
    if values.shape != steps.shape or values.ndim != 1:
      raise ValueError(
        f'curve "{name}" of "{stage}" has shape {list(values.shape)}, but its steps have '
        f"{list(steps.shape)}; give one number for each step."
      )
  if not arrays or not steps.size:
    return _empty("Nothing was logged.")
  colours = {name: i % COLOURS for i, name in enumerate(arrays)}
  charts = (_chart(stage, steps, chart, colours) for chart in _share_axes(arrays))
  return f'<div class="charts">{"".join(charts)}</div>'


def _metrics(metrics: Mapping[str, Mapping[str, float]]) -> str:
  if not metrics:
    return _empty(NO_METRICS)
  names = dict.fromkeys(name for values in metrics.values() for name in values)
  head = "".join(f'<th scope="col">{_metric_label(name)}</th>' for name in names)
  rows = (
    f'<tr><th scope="row">{_text(name)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
    for name, *cells in metric_rows(metrics)[1:]
  )
  lead = "Means over the pictures of each data set; 1 is perfect, 0 for MAE."
  return (
    f'{_lead(lead)}<div class="card scrolls"><table class="metrics">'
    f'<thead><tr><th scope="col">Data set</th>{head}</tr></thead>'
    f"<tbody>{''.join(rows)}</tbody></table></div>"
  )


def _predictions(predictions: Sequence[Prediction]) -> str:
  if not predictions:
    return _empty("The segmenter was tried on no picture.")
  cards = (
    f'<article class="card"><h3>{_text(prediction.name)}</h3>{_views(prediction)}</article>'
    for prediction in predictions
  )
  return _lead("The trained segmenter on pictures.") + "".join(cards)


def _views(prediction: Prediction) -> str:
  """A picture beside its probability, cut-out and overlay."""
  image, probability = prediction.image, np.asarray(prediction.probability, np.float32)
  finite = bool(np.isfinite(probability).all())
  if not finite:
    views = [("Picture", _shrink(image), "")]
  else:
    # Checked at full size first, as shrinking would hide a wrong shape.
    pictures.cutout(image, probability)
    image, probability = _shrink(image), np.clip(_shrink(probability), 0, 1)
    views = [
      ("Picture", image, ""),
      ("Probability", np.rint(probability * 255).astype(np.uint8), ""),
      ("Cut-out", pictures.cutout(image, probability), " chequers"),
      ("Overlay", pictures.overlay(image, probability), ""),
    ]
  figures = (
    f"<figure>{_image(view, f'{name} of {prediction.name}', f'picture{style}')}"
    f"<figcaption>{name}</figcaption></figure>"
    for name, view, style in views
  )
  note = "" if finite else _note("Its probability is not finite, so there is no mask to show.")
  return f'<div class="views">{"".join(figures)}</div>{note}'


def _config(config: Mapping[str, Any]) -> str:
  rows = [
    f'<tr><th scope="row">{_text(key)}</th><td>{_text(value)}</td></tr>'
    for key, value in _flatten(config)
  ]
  if not rows:
    return _empty("No settings were given.")
  return (
    f'<details class="card"><summary>{len(rows)} settings that made this run</summary>'
    f'<table class="config"><tbody>{"".join(rows)}</tbody></table></details>'
  )


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
  """Yields the settings of nested dicts under dotted names."""
  for key, value in config.items():
    if isinstance(value, Mapping):
      yield from _flatten(value, f"{prefix}{key}.")
    else:
      yield f"{prefix}{key}", value


# Charts.


def _share_axes(curves: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
  """Sorts curves into charts so that each still fills a fifth of the height of its chart."""
  charts: list[dict[str, np.ndarray]] = []
  for name, values in curves.items():
    for chart in charts:
      together = [_span(v) for v in [*chart.values(), values]]
      low, high = min(s[0] for s in together), max(s[1] for s in together)
      if all(s[1] - s[0] >= 0.2 * (high - low) > 0 for s in together):
        chart[name] = values
        break
    else:
      charts.append({name: values})
  return charts


def _span(values: np.ndarray) -> tuple[float, float]:
  """Returns the least and the greatest finite value; 0 and 0 if there is none."""
  finite = values[np.isfinite(values)]
  return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _chart(
  stage: str, steps: np.ndarray, curves: Mapping[str, np.ndarray], colours: Mapping[str, int]
) -> str:
  """One chart with its legend; the vertical axis is logarithmic where the values call for it."""
  low, high = _span(np.concatenate(list(curves.values())))
  logarithmic = low > 0 and high > 20 * low
  first, last = _span(steps)
  across = _scale(first, last, LEFT, RIGHT)
  if logarithmic:
    ticks = _log_ticks(low, high)
    height = _scale(math.log10(low), math.log10(high), BOTTOM, TOP)
  else:
    # A constant curve gets an axis too, and runs in the middle of it.
    margin = 0 if low < high else 0.1 * abs(high) or 1.0
    ticks = _ticks(low - margin, high + margin, 5, around=True)
    height = _scale(ticks[0], ticks[-1], BOTTOM, TOP)

  def up(values: np.ndarray) -> np.ndarray:
    return height(np.log10(values) if logarithmic else values)

  marks = [
    f'<line class="rule" x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
    f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>'
    for tick in ticks
    for y in [float(up(np.float64(tick)))]
  ]
  marks += [
    f'<text x="{across(tick):.1f}" y="{BOTTOM + 22}" text-anchor="middle">{tick:,.10g}</text>'
    for tick in _ticks(first, last, 4)
  ]
  paths = (
    f'<path class="curve series-{colours[name]}" d="{_path(across(steps), up(values))}"/>'
    for name, values in curves.items()
  )
  legend = [
    f'<span class="series-{colours[name]}"><i></i>{_text(name)} '
    f"<b>{_number(values[-1], 4)}</b></span>"
    for name, values in curves.items()
  ]
  gaps = sum(int((~np.isfinite(values)).sum()) for values in curves.values())
  note = _note(f"{gaps:,} values that are not finite are left out.") if gaps else ""
  label = _text(f"{stage}: {', '.join(curves)} by step")
  if logarithmic:
    legend.append('<span class="scale">logarithmic</span>')
  return (
    f'<figure class="card"><figcaption class="legend">{"".join(legend)}</figcaption>'
    f'<svg viewBox="0 0 {CHART_WIDTH} {CHART_HEIGHT}" role="img" aria-label="{label}">'
    f"{''.join(marks)}{''.join(paths)}"
    f'<text x="{RIGHT}" y="{CHART_HEIGHT - 6}" text-anchor="end">step</text></svg>'
    f"{note}</figure>"
  )


def _scale(low: float, high: float, start: float, stop: float) -> Callable[[Any], Any]:
  """Returns the linear map of [low, high] to [start, stop]; one point goes to the middle."""
  if low == high:
    return lambda value: value * 0 + (start + stop) / 2
  return lambda value: start + (value - low) * ((stop - start) / (high - low))


def _ticks(low: float, high: float, count: int, around: bool = False) -> list[float]:
  """Returns about `count` evenly spaced round numbers (1, 2 or 5 times a power of ten).

  They lie within [low, high], or reach just `around` it.
  """
  if low == high:
    return [low]
  rough = (high - low) / count
  power = 10.0 ** math.floor(math.log10(rough))
  step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= rough * 0.999)
  first, last, rounding = low / step, high / step, 1e-9
  if around:
    indices = range(math.floor(first + rounding), math.ceil(last - rounding) + 1)
  else:
    indices = range(math.ceil(first - rounding), math.floor(last + rounding) + 1)
  return [i * step for i in indices]


def _log_ticks(low: float, high: float) -> list[float]:
  """Returns about six round numbers within [low, high] for a logarithmic axis."""
  powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
  digits = (1, 2, 5) if len(powers) <= 4 else (1,)
  ticks = [digit * 10.0**power for power in powers for digit in digits]
  ticks = [tick for tick in ticks if low <= tick <= high]
  return ticks[:: math.ceil(len(ticks) / 7)]


def _path(x: np.ndarray, y: np.ndarray) -> str:
  """Returns SVG path data through the points, interrupted where one is not finite."""
  finite = np.isfinite(x) & np.isfinite(y)
  commands = []
  for i in np.flatnonzero(finite):
    follows = i > 0 and finite[i - 1]
    # The line of length 0 makes a point without neighbours a dot.
    commands.append(f"{'L' if follows else 'M'}{x[i]:.1f} {y[i]:.1f}{'' if follows else 'h0'}")
  return "".join(commands)


# Small parts.


def _image(array: np.ndarray, description: str, style: str = "picture") -> str:
  array = np.asarray(array)
  return (
    f'<img class="{style}" src="{pictures.data_uri(array)}" alt="{_text(description)}" '
    f'width="{array.shape[1]}" height="{array.shape[0]}">'
  )


def _shrink(array: np.ndarray) -> np.ndarray:
  """Returns a uint8 [H, W, 3] or float32 [H, W] picture, no side longer than LONGEST_SIDE."""
  factor = LONGEST_SIDE / max(array.shape[:2])
  if factor >= 1:
    return array
  height, width = (max(1, round(side * factor)) for side in array.shape[:2])
  return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BOX))


def _number(value: float, digits: int = 6) -> str:
  """Formats a number briefly, with a real minus sign."""
  return f"{value:.{digits}g}".replace("-", "−")


def _metric_label(name: str) -> str:
  """Returns a metric's name with its index set lower."""
  label, _, index = METRIC_LABELS.get(name, name).partition("_")
  return f"{_text(label)}<sub>{_text(index.replace('beta', 'β'))}</sub>" if index else _text(label)


def _identifier(name: str) -> str:
  return name.lower().replace(" ", "-")


def _text(value: Any) -> str:
  return html.escape(str(value))


def _lead(sentence: str) -> str:
  return f'<p class="lead">{_text(sentence)}</p>'


def _note(sentence: str) -> str:
  return f'<p class="note">{_text(sentence)}</p>'


def _empty(sentence: str) -> str:
  return f'<p class="empty">{_text(sentence)}</p>'
