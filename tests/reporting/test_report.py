"""The report: its images, its text, and its layout in a browser."""

import base64
import dataclasses
import datetime
import html
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from report_pages import CHROMIUM, METRICS, SECTIONS, browse, disc, picture, webp

from unseg_jax.reporting import contents as contents_lib
from unseg_jax.reporting import embedding, report, tables, under_way

ROOT = Path(__file__).parents[2]


@pytest.fixture
def full():
  steps = np.arange(300)
  return contents_lib.ReportContents(
    title="Faces & more",
    config={"seed": 0, "search": {"steps": 300, "learning_rate": 5e-3}},
    direction_picture=picture(128, 320),
    samples=[(picture(seed=i), disc()) for i in range(6)],
    filters={"area": 0.7, "histogram": 0.88, "all": 0.61},
    curves={
      "Search": {
        "step": steps,
        "outside_circle": -0.3 * np.tanh(steps / 50),
        "sobel_shift": 0.01 + 0.01 * np.cos(steps),
      },
      "Training": {"step": steps, "loss": 0.7 * np.exp(-steps / 60.0)},
    },
    metrics={"ECSSD": METRICS, "DUTS-TE": METRICS},
    predictions=[
      contents_lib.Prediction("head.png", picture(128, 160), disc(128, 160) * np.float32(0.9))
    ],
  )


@pytest.fixture
def empty():
  return contents_lib.ReportContents(
    "Nothing yet", {}, np.zeros((0, 0, 3), np.uint8), [], {}, {}, {}, []
  )


# Text.


def test_metrics_table_is_aligned():
  table = tables.metrics_table({"ECSSD": METRICS, "A longer name": {"accuracy": 1, "iou": np.nan}})
  assert table.splitlines() == [
    "Data set       Accuracy     IoU  F_beta   F_max",
    "-------------  --------  ------  ------  ------",
    "ECSSD            0.9500  0.8000  0.9000  0.9123",
    "A longer name    1.0000     nan       -       -",
  ]


def test_metrics_table_without_data_sets_says_so():
  assert tables.metrics_table({}) == "No data set was evaluated."


def test_page_holds_what_it_was_given(full):
  page = report.render(full)
  assert re.findall(r'<section id="([^"]*)"', page) == SECTIONS
  for text in ["Faces &amp; more", "ECSSD", "0.9123", "61.0%", "search.learning_rate", "head.png"]:
    assert text in page
  # The direction, six pairs, four views of one prediction.
  assert page.count("<img") == 1 + 2 * 6 + 4
  # Curves of very different range do not share a chart.
  assert page.count("<svg") == 3


def first_screen(page):
  return page[page.index('id="results"') : page.index('id="direction"')]


MEASURED = {"accuracy": 0.9, "iou": 0.8, "f_max": 0.95, "background_iou": 0.6, "miou": 0.7}
ELLIPSE = {"accuracy": 0.75, "iou": 0.5, "f_max": 0.5, "background_iou": 0.25, "miou": 0.375}


def test_each_score_leads_with_its_data_set_and_the_baselines(full):
  baselines = {name: {"fixed ellipse": ELLIPSE} for name in ("synthetic", "heads")}
  contents = dataclasses.replace(
    full,
    metrics={"synthetic": MEASURED, "heads": MEASURED | {"miou": 0.65}},
    baselines=baselines,
    image_counts={"synthetic": 1024, "heads": 70},
  )
  articles = re.findall(
    r"<article.*?</article>", first_screen(report.render(contents)), flags=re.DOTALL
  )
  # Real images come first, though the evaluation lists them last.
  for article, name, measured_on, miou in (
    (articles[0], "heads", "70 labelled real images", "0.650"),
    (articles[1], "synthetic", "1,024 held-out synthetic pairs", "0.700"),
  ):
    text = " ".join(re.sub(r"<[^>]*>", " ", article).split())
    assert text.startswith(f"{name} {measured_on}")
    assert f"mIoU {miou} fixed ellipse 0.375" in text
    assert "Background IoU 0.600 fixed ellipse 0.250" in text
    assert ("not its quality on photographs" in text) == (name == "synthetic")
  assert "--config.evaluate.folders" not in first_screen(report.render(contents))


def test_a_run_without_real_images_says_how_to_measure_on_some(full):
  contents = dataclasses.replace(full, metrics={"synthetic": MEASURED}, workdir="runs/two words")
  results = first_screen(report.render(contents))
  assert "no baseline was scored" in results
  (command,) = re.findall(r"<pre><code>(.*?)</code>", results, flags=re.DOTALL)
  words = shlex.split(html.unescape(command).replace("\\\n", " "))
  assert words[:3] == ["python", "-m", "unseg_jax.main"]
  assert words[3:6] == [
    "--config=runs/two words/config.json",
    "--workdir=runs/two words",
    "--stages=evaluate,report",
  ]


def test_a_data_set_without_the_usual_metrics_shows_those_it_has(full):
  page = report.render(dataclasses.replace(full, metrics={"ECSSD": {"mae": 0.125}}))
  assert re.findall(r"<dd>([\d.]+)", first_screen(page)) == ["0.125"]


def test_an_unfinished_run_says_which_stages_are_complete_and_how_old_it_is(full):
  read_at = datetime.datetime(2026, 3, 1, 9, 5, tzinfo=datetime.UTC).timestamp()
  stages = [
    under_way.Stage("search", True, True, "complete", read_at - 4000),
    under_way.Stage("train", True, False, "10 of 50 steps", read_at - 600),
    under_way.Stage("evaluate", False, False, "not begun", None),
  ]
  contents = dataclasses.replace(full, stages=stages, read_at=read_at, workdir="runs/faces")
  results = first_screen(report.render(contents))
  assert "This run is not finished" in results
  assert "on 1 March 2026 at 09:05 UTC, 10 minutes after its last write." in results
  rows = re.findall(r"<tr><th[^>]*>(.*?)</th><td>(.*?)</td>", results)
  assert rows == [
    ("search", "complete"),
    ("train", "10 of 50 steps (last write 10 minutes ago)"),
    ("evaluate", "not begun"),
  ]
  assert "The scores below are from an earlier evaluation." in results
  assert "python -m unseg_jax.report runs/faces" in results
  finished = dataclasses.replace(contents, stages=stages[:1])
  assert "not finished" not in report.render(finished)


def test_published_metrics_stand_below_those_of_the_run(full):
  reference = {"ECSSD": {"iou": 0.7, "mae": 0.125}, "Never evaluated": {"iou": 0.3}}
  page = report.render(dataclasses.replace(full, reference=reference))
  rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page[page.index('id="metrics"') :], flags=re.DOTALL)
  cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
  assert [row[0] for row in cells[:4]] == [
    "Data set",
    "ECSSD<small>labelled real images</small>",
    "Published score",
    "DUTS-TE<small>labelled real images</small>",
  ]
  assert cells[1][1:] == ["0.9500", "0.8000", "0.9000", "0.9123", "-"]
  assert cells[2][1:] == ["-", "0.7000", "-", "-", "0.1250"]
  assert "Never evaluated" not in page


def test_searches_from_several_starts_are_shown_and_the_chosen_one_is_marked(full):
  restarts = [
    contents_lib.Restart(f"<{i}>", i == 1, {"loss": -0.25 * i, "acceptance": 0.75}, picture(seed=i))
    for i in range(3)
  ]
  page = report.render(dataclasses.replace(full, restarts=restarts))
  section = page[page.index('id="direction"') : page.index('id="synthetic-set"')]
  rows = re.findall(r"<tr>(.*?)</tr>", section, flags=re.DOTALL)
  assert [">chosen<" in row for row in rows] == [False, False, True, False]
  assert "Loss" in rows[0] and "−0.25" in rows[2] and "0.75" in rows[2] and "&lt;1&gt;" in rows[2]
  for restart in restarts:
    assert embedding.data_uri(restart.picture) in section
  assert "chosen" not in report.render(full)


def test_the_animation_stands_beside_the_picture(full):
  animation = webp()
  page = report.render(dataclasses.replace(full, animation=animation))
  (data,) = re.findall(r'src="data:image/webp;base64,([^"]*)" .*?width="96" height="32"', page)
  assert base64.b64decode(data) == animation
  assert page.count("<img") == 2 + 2 * 6 + 4


def test_an_animation_that_is_no_webp_is_named(full):
  with pytest.raises(ValueError, match="animation, 4 bytes, is not a WebP"):
    report.render(dataclasses.replace(full, animation=b"RIFF"))


def test_same_contents_give_the_same_page(full):
  assert report.render(full) == report.render(full)


def test_page_asks_no_other_host_for_anything(full):
  page = report.render(full)
  assert "://" not in page and "<script" not in page and "@import" not in page
  targets = re.findall(r'(?:src|href|srcset|action)\s*=\s*["\']?([^"\'\s>]*)', page)
  targets += re.findall(r"url\(([^)]*)", page)
  assert targets and all(target.startswith(("data:", "#")) for target in targets)
  assert "default-src 'none'; img-src data:;" in page


def test_names_are_escaped(full):
  evil = '<script>alert("1")</script>'
  page = report.render(
    dataclasses.replace(
      full,
      title=evil,
      config={evil: evil},
      filters={evil: 0.5},
      curves={evil: {"step": [0], evil: [1.0]}},
      metrics={evil: {evil: 0.5}},
      predictions=[dataclasses.replace(full.predictions[0], name=evil)],
    )
  )
  assert "<script" not in page and page.count("&lt;script&gt;") > 8
  assert 'alert("' not in page


def test_empty_sections_say_so(empty):
  page = report.render(empty)
  for section in SECTIONS:
    start = page.index(f'id="{section}"')
    assert page[start : page.index("</section>", start)].count('<p class="empty">') == 1, section


def test_numbers_that_are_not_finite_are_shown_as_such(full):
  page = report.render(
    dataclasses.replace(
      full,
      filters={"all": np.nan},
      metrics={"ECSSD": {"iou": np.nan}},
      curves={"Training": {"step": [0, 1, 2, 3, 4], "loss": [1, np.nan, 2, 3, np.inf]}},
      predictions=[dataclasses.replace(full.predictions[0], probability=disc(128, 160) * np.nan)],
    )
  )
  assert "2 values are not finite and not drawn" in page
  assert "The predicted probability is not finite" in page


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"curves": {"Search": {"loss": [1.0]}}}, '"Search".*"step" is missing'),
    ({"curves": {"Search": {"step": [0, 1], "loss": [1.0]}}}, r'"loss" of "Search".*\[1\].*\[2\]'),
    ({"filters": {"area": 71.3}}, '"area".*71.3.*divide'),
    ({"samples": [(picture(), disc(32))]}, r"\[32, 64\].*needs \[64, 64\]"),
  ],
)
def test_bad_contents_are_named(full, change, message):
  with pytest.raises(ValueError, match=message):
    report.render(dataclasses.replace(full, **change))


def test_large_pictures_are_shrunk(full):
  large = contents_lib.Prediction("large", picture(600, 1500), disc(600, 1500).astype(np.float32))
  page = report.render(dataclasses.replace(full, predictions=[large]))
  assert page.count('width="512" height="205"') == 4


def test_write_replaces_the_report_whole_or_not_at_all(full, tmp_path, monkeypatch):
  path = tmp_path / "report.html"
  report.write(full, path)
  assert path.read_text("utf-8") == report.render(full)
  assert os.listdir(tmp_path) == ["report.html"]

  def interrupted(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, "replace", interrupted)
  with pytest.raises(KeyboardInterrupt):
    report.write(dataclasses.replace(full, title="Second"), path)
  assert path.read_text("utf-8") == report.render(full)


# In a browser.


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome")
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
def test_page_in_a_browser(full, width, tmp_path):
  # A name without spaces must not make the page wider than the screen.
  name = "a_long_name_without_spaces" * 8
  contents = dataclasses.replace(
    full,
    title=name,
    config={name: name},
    filters=full.filters | {name: 0.5},
    metrics=full.metrics | {name: METRICS},
    predictions=[*full.predictions, dataclasses.replace(full.predictions[0], name=name)],
  )
  seen, screenshot = browse(report.render(contents), width, tmp_path)
  assert seen["sections"] == SECTIONS
  assert seen["images"] == seen["decoded"] == 1 + 2 * 6 + 2 * 4
  assert seen["charts"] == 3
  assert seen["requests"] == []
  assert seen["width"] == width
  assert seen["content_width"] <= width
  # Images have many colours; text alone, or an error page, has few.
  colours = screenshot.astype(np.int32) @ [65536, 256, 1]
  assert len(np.unique(colours)) > 2000


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome")
def test_empty_page_in_a_browser(empty, tmp_path):
  seen, screenshot = browse(report.render(empty), 390, tmp_path)
  assert seen["sections"] == SECTIONS
  assert seen["content_width"] <= 390
  assert screenshot.std() > 5


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome")
@pytest.mark.parametrize(
  ("motion_flags", "shown"), [([], 2), (["--force-prefers-reduced-motion"], 1)]
)
def test_nothing_moves_for_those_who_ask_for_it(empty, motion_flags, shown, tmp_path):
  contents = dataclasses.replace(empty, direction_picture=picture(), animation=webp())
  seen, _ = browse(report.render(contents), 390, tmp_path, *motion_flags)
  assert seen["decoded"] == 2 and seen["shown"] == shown
