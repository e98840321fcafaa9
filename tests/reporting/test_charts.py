"""The charts: what is drawn where, on which axes, and with which numbers beside them."""

import re

import numpy as np
import pytest

from unseg_jax.reporting import charts


def curves_of(**values):
  """Curves of the same steps, 0, 1, ..."""
  steps = np.arange(len(next(iter(values.values()))))
  return charts.stage_curves("Any", {"step": steps, **values})


def draw(curves):
  return charts.chart("Any", curves, {name: i for i, name in enumerate(curves)})


def paths(chart):
  """The path data of each curve."""
  return re.findall(r'<path class="curve[^>]* d="([^"]*)"', chart)


def heights(chart):
  """Where the points of all curves lie, in SVG units from the top."""
  return [float(y) for path in paths(chart) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path)]


# Axes.


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, np.nan])
def test_a_constant_curve_is_drawn_in_range(value):
  drawn = heights(draw(curves_of(loss=[value, value])))
  assert all(charts.TOP < y < charts.BOTTOM for y in drawn)
  assert len(drawn) == (0 if np.isnan(value) else 2)


def test_a_single_step_is_drawn_in_the_middle():
  (path,) = paths(draw({"loss": (np.array([7.0]), np.array([1.0]))}))
  assert path == f"M{(charts.LEFT + charts.RIGHT) / 2:.1f} {(charts.TOP + charts.BOTTOM) / 2:.1f}h0"


def test_curves_fill_the_chart_from_the_first_step_to_the_last():
  (path,) = paths(draw(curves_of(loss=[0.0, 0.5, 1.0])))
  middle = f"{(charts.LEFT + charts.RIGHT) / 2:.1f} {(charts.TOP + charts.BOTTOM) / 2:.1f}"
  start, stop = f"{charts.LEFT:.1f} {charts.BOTTOM:.1f}", f"{charts.RIGHT:.1f} {charts.TOP:.1f}"
  assert path == f"M{start}h0L{middle}L{stop}"


def test_curves_share_a_chart_only_if_both_can_be_read():
  falling = np.linspace(1, 0.5, 50)
  curves = curves_of(loss=falling, held_out=falling + 0.1, tiny=falling / 100)
  assert [list(group) for group in charts.share_axes(curves)] == [["loss", "held_out"], ["tiny"]]


def test_curves_over_decades_are_drawn_logarithmically():
  chart = draw(curves_of(loss=np.geomspace(1, 1e-3, 4)))
  spacing = (charts.BOTTOM - charts.TOP) / 3
  np.testing.assert_allclose(np.diff(heights(chart)), spacing, atol=0.2)
  assert "logarithmic" in chart
  # Up to a factor of 20, and where there is no logarithm, the axis is linear.
  for values in ([1, 0.5], [20, 1], [1000, 0], [1000, -1]):
    assert "logarithmic" not in draw(curves_of(loss=values))


@pytest.mark.parametrize(
  ("low", "high", "within", "around"),
  [
    (0, 100, [0, 20, 40, 60, 80, 100], [0, 20, 40, 60, 80, 100]),
    (-0.53, 0.13, [-0.4, -0.2, 0], [-0.6, -0.4, -0.2, 0, 0.2]),
    (0, 18000, [0, 5000, 10000, 15000], [0, 5000, 10000, 15000, 20000]),
  ],
)
def test_ticks_are_round_numbers(low, high, within, around):
  np.testing.assert_allclose(charts._ticks(low, high, 5), within, atol=1e-12)
  np.testing.assert_allclose(charts._ticks(low, high, 5, around=True), around, atol=1e-12)


@pytest.mark.parametrize(
  ("low", "high", "expected"),
  [
    (0.9, 30, [1, 2, 5, 10, 20]),
    (1e-3, 1, [1e-3, 5e-3, 2e-2, 1e-1, 5e-1]),
    (1e-6, 1, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1]),
    (1e-9, 1e4, [1e-9, 1e-7, 1e-5, 1e-3, 1e-1, 1e1, 1e3]),
  ],
)
def test_ticks_of_a_logarithmic_axis_are_few_and_round(low, high, expected):
  np.testing.assert_allclose(charts._log_ticks(low, high), expected, rtol=1e-9)


def test_ticks_stand_beside_their_rules_with_a_real_minus_sign():
  chart = draw(curves_of(loss=[-0.53, 0.13]))
  labels = re.findall(r'<line class="rule"[^>]*/><text[^>]*>([^<]*)<', chart)
  assert labels == ["−0.6", "−0.4", "−0.2", "0", "0.2"]


# Curves.


def test_values_that_are_not_finite_leave_gaps_and_are_counted():
  chart = draw(curves_of(loss=[1, np.nan, 2, 3, np.inf]))
  (path,) = paths(chart)
  # One lonely point, a gap, and a line of two points.
  assert re.fullmatch(r"M[\d. ]+h0M[\d. ]+h0L[\d. ]+", path)
  assert "2 values that are not finite are left out" in chart


def test_the_legend_names_each_curve_and_its_last_value():
  chart = draw(curves_of(loss=[1, 0.25], sobel=[0.5, -0.125]))
  legend = re.findall(r'<span class="(series-\d)"><i></i>(\w+) <b>([^<]*)</b>', chart)
  assert legend == [("series-0", "loss", "0.25"), ("series-1", "sobel", "−0.125")]


def test_more_curves_than_colours_are_told_apart_by_their_strokes():
  styles = {charts.series_style(number) for number in range(3 * charts.COLOURS)}
  assert len(styles) == 3 * charts.COLOURS


def test_a_log_without_lines_has_no_curves():
  assert charts.stage_curves("Any", {"step": [], "loss": []}) == {}
