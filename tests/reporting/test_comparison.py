"""The page that compares runs: its contents, and its layout in a browser."""

import dataclasses
import re

import numpy as np
import pytest
from PIL import Image
from report_pages import CHROMIUM, browse, disc, picture, webp, write_config

from unseg_jax import report as report_command
from unseg_jax.reporting import comparison, embedding, under_way
from unseg_jax.reporting import contents as contents_lib
from unseg_jax.storage import whole_files

SECTIONS = [
  "runs",
  "settings",
  "direction",
  "synthetic-set",
  "filters",
  "losses",
  "metrics",
  "predictions",
]


def run(seed, **changes):
  steps = np.arange(10 + seed)
  contents = contents_lib.ReportContents(
    title="faces",
    config={"seed": seed, "search": {"steps": 10, "learning_rate": 5e-3}},
    direction_picture=picture(96, 80, seed),
    samples=[(picture(seed=seed + i), disc()) for i in range(2)],
    filters={"area": 0.7, "all": 0.25 * (1 + seed)},
    curves={
      "Search": {"step": steps, "sobel_shift": 0.01 * steps + seed},
      "Training": {"step": steps, "loss": np.exp(-steps / 60.0)},
    },
    metrics={"ECSSD": {"iou": 0.5 + 0.125 * seed, "mae": 0.25 + 0.125 * seed}},
    predictions=[
      contents_lib.Prediction("head", picture(), disc() * np.float32(0.25 * (1 + seed)))
    ],
  )
  return dataclasses.replace(contents, **changes)


@pytest.fixture
def runs():
  """Two finished runs, and a run that has just begun."""
  nothing = contents_lib.ReportContents(
    "faces",
    {"seed": 2},
    np.zeros((0, 0, 3), np.uint8),
    [],
    {},
    {},
    {},
    [],
    stages=[
      under_way.Stage("search", True, False, "50 of 300 steps", -120.0),
      under_way.Stage("train", False, False, "not begun", None),
    ],
  )
  return {"first": run(0), "second": run(1), "begun": nothing}


def section(page, name):
  start = page.index(f'id="{name}"')
  return page[start : page.index("</section>", start)]


def rows(html):
  """Returns the text of the cells of each row; | precedes small print."""
  table = []
  for row in re.findall(r"<tr[^>]*>(.*?)</tr>", html, flags=re.DOTALL):
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, flags=re.DOTALL)
    table.append(
      [re.sub(r"<[^>]*>", "", cell.replace("<small>", "|").replace("<br>", " ")) for cell in cells]
    )
  return table


def test_the_stages_that_a_run_lacks_are_named(runs):
  table = rows(section(comparison.render(runs), "runs"))
  assert table[1:3] == [["first", "faces", "Complete"], ["second", "faces", "Complete"]]
  assert table[3][0] == "begun"
  state = " ".join(table[3][2].split())
  assert state == "search: 50 of 300 steps (last write 2 minutes ago) train: not begun"


def test_only_settings_that_differ_are_shown(runs):
  runs = {name: runs[name] for name in ("first", "second")}
  settings = section(comparison.render(runs), "settings")
  assert rows(settings) == [["Setting", "first", "second"], ["seed", "0", "1"]]
  assert "The other 2 are equal" in settings


def test_a_setting_that_a_run_lacks_differs(runs):
  table = rows(section(comparison.render(runs), "settings"))
  assert ["search.learning_rate", "0.005", "0.005", "–"] in table


def test_equal_settings_are_not_listed():
  page = comparison.render({"one": run(0), "other": run(0)})
  assert "All settings of the runs are equal" in section(page, "settings")


def test_pictures_of_every_run_are_shown(runs):
  runs["second"] = dataclasses.replace(runs["second"], animation=webp())
  page = comparison.render(runs)
  direction, samples = section(page, "direction"), section(page, "synthetic-set")
  for name in ("first", "second"):
    assert embedding.data_uri(runs[name].direction_picture) in direction
    assert embedding.data_uri(runs[name].samples[1][0]) in samples
  assert direction.count("data:image/webp") == 1
  assert "The search has no result yet" in direction
  assert "This workdir holds no synthetic pairs" in samples


BAR = r"<dt>(\w+)</dt>.*?width:([\d.]+)%.*?value\">([^<]*)<"


def test_each_filter_has_a_bar_per_run(runs):
  runs["second"] = dataclasses.replace(runs["second"], filters={"all": 0.5})
  filters = section(comparison.render(runs), "filters")
  bars = {
    name: re.findall(BAR, card, flags=re.DOTALL)
    for name, card in re.findall(r"<h3>(\w+)</h3>(.*?)</dl>", filters, flags=re.DOTALL)
  }
  assert bars == {
    "area": [("first", "70.00", "70.0%"), ("second", "0.00", "-"), ("begun", "0.00", "-")],
    "all": [("first", "25.00", "25.0%"), ("second", "50.00", "50.0%"), ("begun", "0.00", "-")],
  }


def test_a_quantity_of_all_runs_is_drawn_in_one_chart(runs):
  losses = section(comparison.render(runs), "losses")
  assert re.findall(r"<h4>(.*?)</h4>", losses) == ["sobel_shift", "loss"]
  for chart in re.findall(r"<figure.*?</figure>", losses, flags=re.DOTALL):
    # Runs of different lengths, on the same axes.
    points = [
      path.count("L") for path in re.findall(r'<path class="curve[^"]*" d="([^"]*)"', chart)
    ]
    assert points == [9, 10]
    assert re.findall(r'<span class="(series-\d)"><i></i>(\w+)', chart) == [
      ("series-0", "first"),
      ("series-1", "second"),
    ]


def test_a_run_keeps_its_colour_where_those_before_it_have_no_curve(runs):
  page = comparison.render({"begun": runs["begun"], "first": runs["first"]})
  assert set(re.findall(r'class="curve (series-\d)"', page)) == {"series-1"}


def test_more_runs_than_colours_are_told_apart_by_their_strokes():
  page = comparison.render({str(i): run(i % 3) for i in range(7)})
  assert 'class="curve series-1 dashed"' in page


def test_the_best_of_each_metric_is_marked(runs):
  reference = {"ECSSD": {"iou": 0.75}}
  runs["second"] = dataclasses.replace(runs["second"], reference=reference)
  metrics = section(comparison.render(runs), "metrics")
  table = [[cell.partition(":")[0] for cell in row] for row in rows(metrics)]
  assert table == [
    ["Metric", "first", "second", "begun"],
    ["ECSSD"],
    ["IoU", "0.5000", "0.6250|0.7500", "–"],
    ["MAE", "0.2500", "0.3750", "–"],
  ]
  # A lower MAE is better.
  assert re.findall(r"<strong[^>]*>([\d.]+)", metrics) == ["0.6250", "0.2500"]


def test_the_baselines_of_each_run_stand_below_its_metrics(runs):
  ellipse = {"ECSSD": {"fixed ellipse": {"iou": 0.5, "miou": 0.375}}}
  runs["second"] = dataclasses.replace(runs["second"], baselines=ellipse)
  table = rows(section(comparison.render(runs), "metrics"))
  assert table[1] == ["ECSSD: labelled real images"]
  assert table[-1] == ["Baseline mIoU: fixed ellipse", "–", "0.3750", "–"]


def test_predictions_on_the_same_picture_stand_side_by_side(runs):
  lost = contents_lib.Prediction("head", picture(), np.full((64, 64), np.nan, np.float32))
  runs["lost"] = run(0, predictions=[lost])
  predictions = section(comparison.render(runs), "predictions")
  assert predictions.count("<article") == 1
  figures = re.findall(r"<figure>(.*?)</figure>", predictions, flags=re.DOTALL)
  assert [figure.count("<img") for figure in figures] == [1, 2, 2, 0, 0]
  for figure, name in zip(figures, ["Image", *runs], strict=True):
    assert f">{name}<" in figure
  for figure, level in zip(figures[1:3], (0.25, 0.5), strict=True):
    assert embedding.data_uri(np.rint(disc() * level * 255).astype(np.uint8)) in figure
  assert "no segmenter" in figures[3] and "not finite" in figures[4]


def test_runs_without_anything_make_a_page(runs):
  page = comparison.render({"one": runs["begun"], "other": runs["begun"]})
  assert re.findall(r'<section id="([^"]*)"', page) == SECTIONS
  for name in ("filters", "losses", "metrics", "predictions"):
    assert section(page, name).count('<p class="empty">') == 1, name


def test_names_are_escaped():
  evil = '<script>alert("1")</script>'
  contents = run(
    0,
    title=evil,
    config={evil: evil},
    filters={evil: 0.5},
    curves={evil: {"step": [0], evil: [1.0]}},
    metrics={evil: {evil: 0.5}},
    predictions=[contents_lib.Prediction(evil, picture(), disc())],
  )
  page = comparison.render({evil: contents, "other": run(1)})
  assert "<script" not in page and page.count("&lt;script&gt;") > 8
  assert 'alert("' not in page


# From workdirs.


def test_every_segmenter_is_tried_on_the_pictures_of_all_runs(tmp_path, monkeypatch):
  for i, name in enumerate(["cat.png", "dog.png"]):
    Image.fromarray(picture(seed=i)).save(tmp_path / name)
  listed = {
    "runs/one": ["cat.png"],
    "runs/other": ["dog.png", str(tmp_path / "cat.png")],
    "elsewhere/one": [],
  }
  for folder, names in listed.items():
    write_config(tmp_path / folder, report={"pictures": names, "samples": 2})
  whole_files.write_json(tmp_path / "elsewhere/one/metrics.json", {"ECSSD": {"iou": 0.5}})
  monkeypatch.setattr(
    contents_lib.Segmenter, "restore", lambda folder: lambda image: image[..., 0] / 255
  )
  monkeypatch.chdir(tmp_path)
  assert str(report_command.make(list(listed), None)) == "comparison.html"
  page = (tmp_path / "comparison.html").read_text("utf-8")
  # Paths distinguish folders of the same name.
  assert [row[0] for row in rows(section(page, "runs"))] == [
    "Run",
    "runs/one",
    "other",
    "elsewhere/one",
  ]
  predictions = section(page, "predictions")
  cards = re.findall(r"<h3>(.*?)</h3>(.*?)</article>", predictions, flags=re.DOTALL)
  assert [name for name, _ in cards] == ["cat", "dog"]
  assert [card.count("<img") for _, card in cards] == [1 + 2 * 3] * 2


# In a browser.


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome")
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_comparison_in_a_browser(runs, width, tmp_path):
  # Names without spaces must not make the page wider than the screen.
  runs["a_long_name_without_spaces" * 8] = run(2, animation=webp())
  page = comparison.render(runs)
  assert "://" not in page and "<script" not in page
  seen, screenshot = browse(page, width, tmp_path)
  assert seen["sections"] == SECTIONS
  # Three runs, each with a direction, two pairs and two views; one animation and one image.
  assert seen["images"] == seen["decoded"] == seen["shown"] == 3 * (1 + 4 + 2) + 2
  assert seen["charts"] == 2
  assert seen["requests"] == []
  assert seen["content_width"] <= width
  colours = screenshot.astype(np.int32) @ [65536, 256, 1]
  assert len(np.unique(colours)) > 1000
