"""Charts: positions of curves, axes, and tick labels."""

import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from unseg_jax.reporting import charts, page

ROOT = Path(__file__).parents[2]


def curves_of(**values):
  """Returns curves over the same steps 0, 1, ..."""
  steps = np.arange(len(next(iter(values.values()))))
  return charts.stage_curves("Any", {"step": steps, **values})


def draw(curves):
  """Returns a chart with its legend and notes, as on a page."""
  return str(page.TEMPLATES.get_template("parts.html").module.chart("Any", curves, list(curves)))


def lines(chart):
  """Returns the points of each unbroken line, in SVG units from the top left corner."""
  paths = re.findall(r'<path class="curve[^>]* d="([^"]*)"', chart)
  return [
    [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", line)]
    for path in paths
    for line in path.split("M")[1:]
    for line in ["M" + line]
  ]


def heights(chart):
  """Returns the vertical positions of all points, in SVG units from the top."""
  return [y for line in lines(chart) for _, y in line]


def labels(chart):
  """Returns the tick labels below the chart, and those beside it."""
  labels = re.findall(r'<text [^>]*y="([\d.]+)"[^>]*>([^<]*)<', chart)
  below = [label for y, label in labels if float(y) > charts.BOTTOM + 10 and label != "step"]
  return below, [label for y, label in labels if float(y) <= charts.BOTTOM + 10]


def numbers(chart):
  """Returns the numbers of the vertical axis."""
  return [float(label.replace("−", "-")) for label in labels(chart)[1]]


# Axes.


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, np.nan])
def test_a_constant_curve_is_drawn_in_range(value):
  drawn = heights(draw(curves_of(loss=[value, value])))
  assert all(charts.TOP < y < charts.BOTTOM for y in drawn)
  assert len(drawn) == (0 if np.isnan(value) else 2)


def test_a_single_step_is_drawn_in_the_middle_as_a_dot():
  chart = draw({"loss": (np.array([7.0]), np.array([1.0]))})
  middle = (charts.LEFT + charts.RIGHT) / 2, (charts.TOP + charts.BOTTOM) / 2
  assert lines(chart) == [[middle]] and labels(chart)[0] == ["7"]
  # Browsers draw a dot only for a line, which may have length 0.
  assert re.search(r'<path class="curve[^>]* d="M \S+ \S+ h 0"', chart)


def test_curves_fill_the_chart_from_the_first_step_to_the_last():
  (line,) = lines(draw(curves_of(loss=[0.0, 0.5, 1.0])))
  middle = (charts.LEFT + charts.RIGHT) / 2, (charts.TOP + charts.BOTTOM) / 2
  assert line == [(charts.LEFT, charts.BOTTOM), middle, (charts.RIGHT, charts.TOP)]


def test_curves_share_a_chart_only_if_both_can_be_read():
  falling = np.linspace(1, 0.5, 50)
  curves = curves_of(loss=falling, held_out=falling + 0.1, tiny=falling / 100)
  assert [list(group) for group in charts.share_axes(curves)] == [["loss", "held_out"], ["tiny"]]


def test_curves_over_decades_are_drawn_logarithmically():
  chart = draw(curves_of(loss=np.geomspace(1, 1e-3, 4)))
  spacing = (charts.BOTTOM - charts.TOP) / 3
  np.testing.assert_allclose(np.diff(heights(chart)), spacing, atol=0.2)
  assert "logarithmic" in chart
  # The axis is linear up to a factor of 20, and for values without a logarithm.
  for values in ([1, 0.5], [20, 1], [1000, 0], [1000, -1]):
    assert "logarithmic" not in draw(curves_of(loss=values))


@pytest.mark.parametrize(
  ("low", "high", "expected"),
  [
    (0, 100, [0, 20, 40, 60, 80, 100]),
    (-0.53, 0.13, [-0.6, -0.4, -0.2, 0, 0.2]),
    (0, 18000, [0, 5000, 10000, 15000, 20000]),
    (7.2, 8.11, [7.2, 7.4, 7.6, 7.8, 8, 8.2]),
  ],
)
def test_numbers_of_a_linear_axis_are_round_and_reach_around_the_values(low, high, expected):
  assert numbers(draw(curves_of(loss=[low, high]))) == expected


@pytest.mark.parametrize(
  ("last", "expected"),
  [
    (100, ["0", "50", "100"]),
    (18000, ["0", "5,000", "10,000", "15,000"]),
    (1, ["0", "1"]),
  ],
)
def test_numbers_of_the_steps_are_round_and_within_them(last, expected):
  chart = draw({"loss": (np.array([0.0, last]), np.array([0.0, 1.0]))})
  assert labels(chart)[0] == expected


def test_a_number_at_the_right_edge_ends_there():
  chart = draw({"loss": (np.array([0.0, 2e7]), np.array([0.0, 1.0]))})
  assert re.search(r'text-anchor="(\w+)">20,000,000<', chart)[1] == "end"
  assert re.search(r'text-anchor="(\w+)">10,000,000<', chart)[1] == "middle"


@pytest.mark.parametrize(
  ("low", "high", "expected"),
  [
    (0.9, 30, [1, 2, 5, 10, 20]),
    (1e-2, 5, [0.01, 0.03, 0.1, 0.3, 1, 3]),
    (1e-3, 1, [1e-3, 1e-2, 1e-1, 1]),
    (1e-6, 1, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1]),
    (1e-9, 1e4, [1e-8, 1e-6, 1e-4, 1e-2, 1, 1e2, 1e4]),
  ],
)
def test_numbers_of_a_logarithmic_axis_are_few_and_round(low, high, expected):
  np.testing.assert_allclose(numbers(draw(curves_of(loss=[low, high]))), expected, rtol=1e-9)


def test_numbers_stand_beside_their_rules_with_a_real_minus_sign():
  chart = draw(curves_of(loss=[-0.53, 0.13]))
  rules = re.findall(r'<path d="M \S+ (\S+) L[^>]*><text [^>]*y="([\d.]+)"[^>]*>([^<]*)<', chart)
  assert [label for _, _, label in rules] == ["−0.6", "−0.4", "−0.2", "0", "0.2"]
  # The baseline of the text lies slightly below the rule, which centres the text on it.
  assert all(3 < float(baseline) - float(rule) < 7 for rule, baseline, _ in rules)


# Curves.


def test_values_that_are_not_finite_leave_gaps_and_are_counted():
  chart = draw(curves_of(loss=[1, np.nan, 2, 3, np.inf]))
  # A single point, a gap, and a line of two points.
  assert [len(line) for line in lines(chart)] == [1, 2]
  assert chart.count(" h 0") == 1
  assert "2 values are not finite and not drawn" in chart


def test_every_logged_value_is_drawn():
  (line,) = lines(draw(curves_of(loss=np.linspace(0, 1, 500))))
  assert len(line) == 500


def test_the_legend_names_each_curve_and_its_last_value():
  chart = draw(curves_of(loss=[1, 0.25], sobel=[0.5, -0.125]))
  legend = re.findall(r'<span class="(series-\d)"><i></i>(\w+) <b>([^<]*)</b>', chart)
  assert legend == [("series-0", "loss", "0.25"), ("series-1", "sobel", "−0.125")]
  assert re.findall(r'<path class="curve (series-\d)"', chart) == ["series-0", "series-1"]


def test_the_legend_labels_metrics_as_the_tables_do():
  chart = draw(curves_of(miou=[0.5, 0.75], f_beta=[0.5, 0.25], sobel_shift=[0.5, 1]))
  legend = re.findall(r"<i></i>(.*?) <b>", chart)
  assert legend == ["mIoU", "F<sub>β</sub>", "sobel_shift"]


def test_the_page_gives_the_colours_so_that_they_follow_the_readers_theme():
  svg = charts.draw(curves_of(loss=[1, 0.25]), ["loss"], "Any")
  assert "style=" not in svg and "fill=" not in svg and "#" not in svg


def test_charts_of_one_page_share_no_ids():
  assert " id=" not in charts.draw(curves_of(loss=[1, 0.25]), ["loss"], "Any")


def test_a_chart_is_described_for_those_who_do_not_see_it():
  svg = charts.draw(curves_of(loss=[1, 0.25]), ["loss"], 'Loss of "<a>" by step')
  assert 'role="img" aria-label="Loss of &quot;&lt;a&gt;&quot; by step"' in svg


def test_settings_of_matplotlib_change_no_chart_and_stay_as_they_are():
  curves = curves_of(loss=[1, 0.25])
  expected = charts.draw(curves, ["loss"], "Any")
  with matplotlib.rc_context({"font.size": 40, "axes.grid": False, "text.usetex": True}):
    before = dict(matplotlib.rcParams)
    assert charts.draw(curves, ["loss"], "Any") == expected
    assert dict(matplotlib.rcParams) == before
  assert (
    "matplotlib.pyplot"
    not in subprocess.run(
      [sys.executable, "-c", WITHOUT_PYPLOT], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
  )


WITHOUT_PYPLOT = """
import sys, numpy as np
from unseg_jax.reporting import charts
assert "matplotlib" not in sys.modules, "imported before anything is drawn"
charts.draw({"loss": (np.arange(2.0), np.arange(2.0))}, ["loss"], "Any")
print(*sys.modules)
"""


def test_more_curves_than_colours_are_told_apart_by_their_strokes():
  styles = {charts.series_style(number) for number in range(3 * charts.COLOURS)}
  assert len(styles) == 3 * charts.COLOURS


def test_a_log_without_lines_has_no_curves():
  assert charts.stage_curves("Any", {"step": [], "loss": []}) == {}
