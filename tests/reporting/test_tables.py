"""Tables as text and Markdown."""

import math

import numpy as np
import pytest

from unseg_jax.reporting.tables import best, metrics_table, restarts_table

METRICS = {
  "ECSSD": {"accuracy": 0.95, "iou": 0.8, "f_max": 0.91234},
  "CUB-200-2011": {"accuracy": 1, "mae": math.nan},
}
PAPER = {"ECSSD": {"accuracy": 0.9, "iou": 0.7}, "DUTS": {"iou": 0.5, "f_beta": 0.5}}


def test_text_has_the_reference_below_its_data_set():
  assert metrics_table(METRICS, PAPER).splitlines() == [
    "Data set           Accuracy     IoU   F_max  MAE",
    "-----------------  --------  ------  ------  ---",
    "ECSSD                0.9500  0.8000  0.9123    -",
    "ECSSD (reference)    0.9000  0.7000       -    -",
    "CUB-200-2011         1.0000       -       -  nan",
  ]


def test_baselines_stand_below_their_data_set():
  baselines = {"ECSSD": {"fixed ellipse": {"iou": 0.6, "miou": 0.5}}, "DUTS": {"other": {}}}
  lines = metrics_table(METRICS, PAPER, "text", baselines).splitlines()
  assert [line.partition("  ")[0] for line in lines[2:]] == [
    "ECSSD",
    "ECSSD (reference)",
    "ECSSD (fixed ellipse)",
    "CUB-200-2011",
  ]
  assert lines[4].split()[3:] == ["-", "0.6000", "-", "-"]


def test_markdown_is_a_table_with_numbers_aligned_right():
  assert metrics_table({"a|b": {"iou": 0.5}}, style="markdown").splitlines() == [
    "| Data set |    IoU |",
    "| -------- | -----: |",
    "| a\\|b     | 0.5000 |",
  ]


def test_markdown_has_the_reference_too():
  lines = metrics_table(METRICS, PAPER, style="markdown").splitlines()
  assert lines[3] == "| ECSSD (reference) |   0.9000 | 0.7000 |      - |   - |"
  assert len({len(line) for line in lines}) == 1


def test_a_metric_that_only_the_reference_has_gets_a_column():
  assert "F_beta" in metrics_table({"DUTS": {"iou": 0.4}}, PAPER).splitlines()[0]


def test_metrics_of_the_field_have_their_names():
  header = metrics_table(
    {"x": dict.fromkeys(["mae", "s_measure", "e_measure", "weighted_f", "other"], 0)}
  ).splitlines()[0]
  names = [name.strip() for name in header.split("  ") if name]
  assert names == ["Data set", "MAE", "S-measure", "E-measure", "Weighted F", "other"]


def test_restarts_are_listed_and_the_chosen_one_is_marked():
  rows = [
    {"restart": 0, "chosen": False, "loss": -0.25, "agreement": 0.5},
    {"restart": 1, "chosen": True, "loss": -0.5, "agreement": 0.75},
  ]
  header, _, first, second = restarts_table(rows).splitlines()
  assert header.split() == ["Restart", "Loss", "Agreement"]
  assert first.split() == ["0", "-0.2500", "0.5000"]
  assert second.split() == ["1", "-0.5000", "0.7500", "chosen"]


@pytest.mark.parametrize("style", ["text", "markdown"])
def test_without_data_sets_the_table_says_so(style):
  assert metrics_table({}, PAPER, style) == "No data set was evaluated."


def test_an_unknown_style_is_refused():
  with pytest.raises(ValueError, match="style is 'html'; use text or markdown"):
    metrics_table(METRICS, style="html")


@pytest.mark.parametrize(
  ("values", "lower", "expected"),
  [
    ([0.1, 0.3, 0.2], False, {1}),
    ([0.1, 0.3, 0.2], True, {0}),
    ([0.3, None, 0.3, 0.2], False, {0, 2}),
    ([np.nan, 0.3, 0.2], False, {1}),
    ([0.3, 0.3], False, set()),
    ([0.3, None, np.nan], False, set()),
    ([], False, set()),
  ],
)
def test_the_best_number(values, lower, expected):
  assert best(values, lower) == expected
