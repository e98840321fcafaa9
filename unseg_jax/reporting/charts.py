"""Charts of logged values by step: matplotlib computes the layout, the page's CSS sets colours."""

import io
import re
from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

import numpy as np
from markupsafe import Markup

from unseg_jax.array_types import Float

# In SVG units, which are points. The margins leave space for the larger text on phones.
WIDTH, HEIGHT = 480, 274
LEFT, RIGHT, TOP, BOTTOM = 66, 468, 12, 224
COLOURS = 5  # As many as style.css has --series- variables.
STROKES = ("", " dashed", " dotted")  # Distinguish more curves than there are colours.
ROUND = (1, 2, 5, 10)  # First digits of the numbers on a linear axis.
STYLE = {"font.size": 13, "path.simplify": False, "svg.fonttype": "none"}
SVG = "{http://www.w3.org/2000/svg}"

# Steps and values, of equal length.
Curve = tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]
Curves = Mapping[str, Curve]  # By name.
# The log of a stage, by the names of its columns.
Columns = Mapping[str, Sequence[int | float] | np.ndarray]


def stage_curves(stage: str, columns: Columns) -> Curves:
  """Returns the curves in the columns of a stage's log; none if the log is empty.

  Raises:
    ValueError: the column "step" is missing, or the columns differ in length.
  """
  if "step" not in columns:
    raise ValueError(
      f'the curves of "{stage}" have the columns {list(columns)}, but "step" is missing: '
      "add the steps at which the values were logged."
    )
  arrays = {name: np.asarray(values, np.float64) for name, values in columns.items()}
  steps = arrays.pop("step")
  for name, values in arrays.items():
    if values.shape != steps.shape or values.ndim != 1:
      raise ValueError(
        f'curve "{name}" of "{stage}" has shape {list(values.shape)}, but its steps have '
        f"{list(steps.shape)}: expected one number for each step."
      )
  return {name: (steps, values) for name, values in arrays.items()} if steps.size else {}


def share_axes(curves: Curves) -> Sequence[Curves]:
  """Groups curves into charts, in which each curve spans at least a fifth of the height."""
  groups: list[dict[str, Curve]] = []
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


def draw(curves: Curves, order: Sequence[str], label: str) -> Markup:
  """Draws curves on common axes, as an SVG element that the page colours.

  Args:
    curves: with at least one point each. Values that are not finite leave gaps.
    order: the names of the curves of all charts; the position of a name determines its style.
    label: a description for readers who cannot see the chart.
  """
  # Imported here, because the import takes half a second that only drawing needs.
  from matplotlib import figure, style, ticker

  first, last = _span(np.concatenate([steps for steps, _ in curves.values()]))
  low, high = _span(np.concatenate([values for _, values in curves.values()]))
  with style.context(STYLE, after_reset=True):
    area = LEFT / WIDTH, 1 - BOTTOM / HEIGHT, (RIGHT - LEFT) / WIDTH, (BOTTOM - TOP) / HEIGHT
    chart = figure.Figure((WIDTH / 72, HEIGHT / 72), frameon=False)
    axes = chart.add_axes(area, frameon=False)
    for name, (steps, values) in curves.items():
      axes.plot(steps, values, gid=f"curve {series_style(order.index(name))}", clip_on=False)
    axes.grid(axis="y")
    axes.tick_params(length=0, pad=8)
    axes.tick_params("x", pad=13)
    axes.set_xlabel("step", loc="right", labelpad=8)
    margin = 0 if first < last else 0.5
    axes.set_xlim(first - margin, last + margin)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(4, steps=ROUND, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter("{x:,.10g}")
    if logarithmic(curves):
      axes.set(yscale="log", ylim=(low, high))
      digits = (1, 2, 5) if high < 100 * low else (1, 3) if high < 1000 * low else (1,)
      axes.yaxis.set_major_locator(ticker.LogLocator(subs=digits, numticks=7))
      axes.minorticks_off()
    else:
      # The axis of a constant curve extends to both sides of it.
      margin = 0 if low < high else 0.1 * abs(high) or 1.0
      numbers = ticker.MaxNLocator(5, steps=ROUND).tick_values(low - margin, high + margin)
      axes.set(yticks=numbers, ylim=(numbers[0], numbers[-1]))
    axes.yaxis.set_major_formatter(lambda value, _: format_number(value))
    chart.savefig(file := io.BytesIO(), format="svg")
  return _inline(file.getvalue(), label)


def logarithmic(curves: Curves) -> bool:
  """Whether the vertical axis is logarithmic: the values are positive and span a factor over 20."""
  low, high = _span(np.concatenate([values for _, values in curves.values()]))
  return low > 0 and high > 20 * low


def gaps(curves: Curves) -> int:
  """Returns the number of values that are not finite, and therefore not drawn."""
  return sum(int((~np.isfinite(values)).sum()) for _, values in curves.values())


def series_style(number: int) -> str:
  """Returns the CSS classes of a curve or bar: a colour, and a stroke where colours repeat."""
  return f"series-{number % COLOURS}{STROKES[number // COLOURS % len(STROKES)]}"


def format_number(value: float, digits: int = 6) -> str:
  """Formats a number with a typographic minus sign; negative zero has none."""
  return f"{value + 0.0:.{digits}g}".replace("-", "−")


def _span(values: np.ndarray) -> tuple[float, float]:
  """Returns the smallest and largest finite values; 0 and 0 if no value is finite."""
  finite = values[np.isfinite(values)]
  return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _inline(file: bytes, label: str) -> Markup:
  """Extracts the lines and numbers of matplotlib's SVG file; the page has their styles.

  The ids that `draw` sets become classes, because ids must be unique on a page of several charts.
  """
  old = fromstring(file)
  new = Element("svg", {"viewBox": old.get("viewBox", ""), "role": "img", "aria-label": label})
  for group in old.iter(SVG + "g"):
    identifier = group.get("id", "")
    curve = {"class": identifier} if identifier.startswith("curve") else {}
    for part in group.findall(SVG + "path"):
      SubElement(new, "path", curve, d=_round(part.get("d", "")))
    for part in group.findall(SVG + "text"):
      place = {name: _round(part.get(name, "")) for name in ("x", "y")}
      # A number at the right edge ends there; centred, it would not fit.
      at_edge = float(place["x"]) > RIGHT - 25
      anchor = "end" if at_edge else re.findall(r"text-anchor: (\w+)", part.get("style", ""))[0]
      SubElement(new, "text", place, **{"text-anchor": anchor}).text = part.text
  return Markup(tostring(new, encoding="unicode"))


def _round(coordinates: str) -> str:
  """Rounds to tenths, and turns a point without neighbours into a dot: a line of length 0."""
  rounded = re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.1f}", coordinates)
  return re.sub(r"M \S+ \S+(?= M|$)", r"\g<0> h 0", " ".join(rounded.split()))
