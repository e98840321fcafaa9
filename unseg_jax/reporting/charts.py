"""Charts of logged values by step, as SVG within HTML."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unseg_jax.reporting.html_parts import format_number, note, text

# The drawing area of a chart, in SVG units; text is larger on a phone, so the margins are wide.
CHART_WIDTH, CHART_HEIGHT = 480, 274
LEFT, RIGHT, TOP, BOTTOM = 66, 468, 12, 224
COLOURS = 5  # As many as the template has --series- variables.
STROKES = ("", " dashed", " dotted")  # Tell apart curves for which the colours do not suffice.

# Curves by name, each its steps and its values, float64 [N] both.
Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]


def stage_curves(stage: str, columns: Mapping[str, Sequence[float]]) -> Curves:
  """Returns the curves in the columns of a stage's log; none if it has no lines.

  Raises:
    ValueError: the column "step" is missing, or the columns are not equally long.
  """
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
  return {name: (steps, values) for name, values in arrays.items()} if steps.size else {}


def share_axes(curves: Curves) -> list[Curves]:
  """Sorts curves into charts so that each still fills a fifth of the height of its chart."""
  groups: list[dict[str, tuple[np.ndarray, np.ndarray]]] = []
  for name, curve in curves.items():
    for group in groups:
      together = [_span(values) for _, values in [*group.values(), curve]]
      low, high = min(s[0] for s in together), max(s[1] for s in together)
      if all(s[1] - s[0] >= 0.2 * (high - low) > 0 for s in together):
        group[name] = curve
        break
    else:
      groups.append({name: curve})
  return groups


def chart(label: str, curves: Curves, series: Mapping[str, int], heading: str = "") -> str:
  """One chart with its legend; the vertical axis is logarithmic where the values call for it.

  Args:
    label: what it shows, for those who do not see it.
    curves: what to draw, at least one point of each.
    series: the number of each curve's colour, counted from 0.
    heading: to stand above the legend.
  """
  low, high = _span(np.concatenate([values for _, values in curves.values()]))
  logarithmic = low > 0 and high > 20 * low
  first, last = _span(np.concatenate([steps for steps, _ in curves.values()]))
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
    f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{format_number(tick)}</text>'
    for tick in ticks
    for y in [float(up(np.float64(tick)))]
  ]
  marks += [
    # A number at the right edge ends there, as it would not fit around it.
    f'<text x="{x:.1f}" y="{BOTTOM + 22}" text-anchor="{"middle" if x < RIGHT - 25 else "end"}">'
    f"{tick:,.10g}</text>"
    for tick in _ticks(first, last, 4)
    for x in [across(tick)]
  ]
  paths = (
    f'<path class="curve {series_style(series[name])}" d="{_path(across(steps), up(values))}"/>'
    for name, (steps, values) in curves.items()
  )
  legend = [
    f'<span class="{series_style(series[name])}"><i></i>{text(name)} '
    f"<b>{format_number(values[-1], 4)}</b></span>"
    for name, (_, values) in curves.items()
  ]
  gaps = sum(int((~np.isfinite(values)).sum()) for _, values in curves.values())
  remark = note(f"{gaps:,} values that are not finite are left out.") if gaps else ""
  if logarithmic:
    legend.append('<span class="scale">logarithmic</span>')
  return (
    f'<figure class="card"><figcaption>{f"<h4>{text(heading)}</h4>" if heading else ""}'
    f'<div class="legend">{"".join(legend)}</div></figcaption>'
    f'<svg viewBox="0 0 {CHART_WIDTH} {CHART_HEIGHT}" role="img" aria-label="{text(label)}">'
    f"{''.join(marks)}{''.join(paths)}"
    f'<text x="{RIGHT}" y="{CHART_HEIGHT - 6}" text-anchor="end">step</text></svg>'
    f"{remark}</figure>"
  )


def series_style(number: int) -> str:
  """The CSS classes of a curve, a legend or a bar: a colour, and a stroke where colours repeat."""
  return f"series-{number % COLOURS}{STROKES[number // COLOURS % len(STROKES)]}"


def _span(values: np.ndarray) -> tuple[float, float]:
  """Returns the least and the greatest finite value; 0 and 0 if there is none."""
  finite = values[np.isfinite(values)]
  return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


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
