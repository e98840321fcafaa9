"""The report: its pictures, its text, and how it looks in a browser."""

import base64
import dataclasses
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_pages import CHROMIUM, browse, disc, picture, webp, write_config

from unseg_jax import report as report_command
from unseg_jax.reporting import comparison, report, tables
from unseg_jax.reporting import contents as contents_lib
from unseg_jax.reporting import pictures as drawing
from unseg_jax.runtime import pictures, workdir

SECTIONS = [
  "results",
  "direction",
  "synthetic-set",
  "filters",
  "losses",
  "metrics",
  "predictions",
  "config",
]
ROOT = Path(__file__).parents[2]
METRICS = {"accuracy": 0.95, "iou": 0.8, "f_beta": 0.9, "f_max": 0.91234}


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


# Pictures.


def test_bytes_survive_the_way_to_the_networks_range_and_back():
  every_byte = np.arange(256, dtype=np.uint8)
  floats = pictures.to_float(every_byte)
  assert floats.dtype == np.float32 and floats.min() == -1 and floats.max() == 1
  np.testing.assert_array_equal(pictures.to_uint8(floats), every_byte)


def test_to_uint8_rounds_to_nearest_and_clips():
  step = 1 / 127.5
  values = np.array([-7, -1 + 0.4 * step, -1 + 0.6 * step, 1 - 0.4 * step, 7], np.float32)
  np.testing.assert_array_equal(pictures.to_uint8(values), [0, 0, 1, 255, 255])


def test_overlay_keeps_the_foreground_and_darkens_the_background():
  image, mask = picture(), disc()
  result = drawing.overlay(image, mask)
  outline = (result == drawing.OUTLINE).all(axis=-1)
  np.testing.assert_array_equal(result[mask & ~outline], image[mask & ~outline])
  assert result[~mask].mean() < 0.6 * image[~mask].mean()
  # The outline lies in the mask and separates its inside from the background.
  assert outline.any() and not outline[~mask].any()
  inside = mask & ~outline
  for axis in (0, 1):
    for shift in (-1, 1):
      assert not (np.roll(inside, shift, axis) & ~mask).any()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_overlay_of_a_uniform_mask_has_no_outline(value):
  result = drawing.overlay(picture(), np.full((64, 64), value, np.float32))
  assert not (result == drawing.OUTLINE).all(axis=-1).any()


def test_cutout_turns_probability_into_opacity():
  probability = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
  result = drawing.cutout(picture(), probability)
  np.testing.assert_array_equal(result[..., :3], picture())
  np.testing.assert_array_equal(result[..., 3], np.rint(probability * 255))


def test_grid_fills_rows_and_leaves_the_rest_white():
  images = np.stack([np.full((2, 3, 3), i, np.uint8) for i in range(5)])
  sheet = pictures.grid(images, columns=2)
  assert sheet.shape == (6, 6, 3)
  np.testing.assert_array_equal(sheet[::2, ::3, 0], [[0, 1], [2, 3], [4, 255]])


@pytest.mark.parametrize("channels", [(), (3,), (4,)])
def test_png_keeps_every_pixel(channels):
  array = np.random.default_rng(0).integers(0, 256, (5, 7, *channels), dtype=np.uint8)
  decoded = np.asarray(Image.open(io.BytesIO(pictures.png_bytes(array))))
  np.testing.assert_array_equal(decoded, array)


def test_png_of_a_mask_is_black_and_white():
  decoded = np.asarray(Image.open(io.BytesIO(pictures.png_bytes(disc()))))
  np.testing.assert_array_equal(decoded, disc() * np.uint8(255))


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: pictures.to_uint8(picture()), "uint8 already"),
    (lambda: pictures.to_uint8(np.array([np.nan])), "finite"),
    (lambda: pictures.to_float(np.zeros(3)), "float64.*expects uint8"),
    (lambda: drawing.overlay(picture() / 255, disc()), "float64.*to_uint8"),
    (lambda: drawing.overlay(picture(), disc(32)), r"\[32, 64\].*needs \[64, 64\]"),
    (lambda: drawing.cutout(picture(), disc() * 255), "spans 0 to 255.*divide"),
    (lambda: drawing.cutout(picture(), disc() * np.nan), "spans nan"),
    (lambda: pictures.grid(picture(), 1), r"\[64, 64, 3\].*expects uint8 \[N"),
    (lambda: pictures.grid(picture()[None], 0), "columns=0"),
    (lambda: pictures.png_bytes(np.zeros((4, 4))), "float64.*to_uint8"),
  ],
)
def test_bad_pictures_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()


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


def test_page_of_one_data_set_leads_with_its_metrics(full):
  page = report.render(dataclasses.replace(full, metrics={"ECSSD": METRICS}))
  results = page[page.index('id="results"') : page.index('id="direction"')]
  assert re.findall(r"<dd>([\d.]+)", results) == ["0.9500", "0.8000", "0.9000", "0.9123"]


def test_published_metrics_stand_below_those_of_the_run(full):
  reference = {"ECSSD": {"iou": 0.7, "mae": 0.125}, "Never evaluated": {"iou": 0.3}}
  page = report.render(dataclasses.replace(full, reference=reference))
  rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page[page.index('id="metrics"') :], flags=re.DOTALL)
  cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
  assert [row[0] for row in cells[:4]] == ["Data set", "ECSSD", "Published", "DUTS-TE"]
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
    assert drawing.data_uri(restart.picture) in section
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
  assert "2 values that are not finite are left out" in page
  assert "Its probability is not finite" in page


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


# From a workdir.


@pytest.fixture
def searched(tmp_path):
  """The workdir of a run that stopped after its search."""
  folder = tmp_path / "searched"
  write_config(folder)
  workdir.write_json(folder / "search" / "history.json", {"step": [0, 1], "loss": [2.0, 1.0]})
  Image.fromarray(picture(32, 80)).save(folder / "search" / "direction.png")
  return folder


def test_collects_what_an_unfinished_run_left(searched):
  found = contents_lib.collect(
    searched, contents_lib.find_pictures(["example:astronaut_head.png"]), 2
  )
  assert found.title == "faces" and found.reference == {"ECSSD": {"iou": 0.7}}
  np.testing.assert_array_equal(found.direction_picture, picture(32, 80))
  assert list(found.curves) == ["Search"] and found.curves["Search"]["loss"] == [2.0, 1.0]
  assert not (found.samples or found.filters or found.metrics or found.predictions)
  assert not (found.restarts or found.animation)
  assert "No synthetic pairs were kept" in report.render(found)


def test_collects_nothing_but_the_config_of_a_run_that_has_just_begun(tmp_path):
  write_config(tmp_path)
  page = report.render(contents_lib.collect(tmp_path, [], 2))
  assert page.count('<p class="empty">') == len(SECTIONS) - 1


def test_collects_the_results_of_every_stage(searched, monkeypatch):
  records = [{"image": picture(seed=i), "mask": disc()[..., None] * 255} for i in range(3)]
  monkeypatch.setattr(contents_lib.shards, "read", lambda folder, split: records)
  monkeypatch.setattr(
    contents_lib.Segmenter, "restore", lambda folder: lambda image: image[..., 0] / 255
  )
  workdir.write_json(searched / "generate" / "filters.json", {"rates": {"all": 0.5}})
  workdir.write_json(searched / "train" / "history.json", {"Training": {"step": [1], "loss": [3]}})
  workdir.write_json(searched / "metrics.json", {"ECSSD": METRICS})
  restarts = [{"restart": i, "chosen": i == 1, "loss": -0.5} for i in range(2)]
  workdir.write_json(searched / "search" / "restarts.json", restarts)
  Image.fromarray(picture(32, 80, 1)).save(searched / "search" / "restart-1.png")
  (searched / "search" / "direction.webp").write_bytes(webp())
  paths = [searched.parent / name for name in ("one/head.png", "two/head.png", "two/cat.png")]
  for i, path in enumerate(paths):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(picture(seed=i)).save(path)

  found = contents_lib.collect(searched, paths, 2)
  assert len(found.samples) == 2
  np.testing.assert_array_equal(found.samples[1][0], picture(seed=1))
  np.testing.assert_array_equal(found.samples[1][1], disc())
  assert found.filters == {"all": 0.5} and list(found.curves) == ["Search", "Training"]
  assert found.metrics == {"ECSSD": METRICS} and found.animation == webp()
  assert [(r.name, r.chosen, r.scores) for r in found.restarts] == [
    ("0", False, {"loss": -0.5}),
    ("1", True, {"loss": -0.5}),
  ]
  assert not found.restarts[0].picture.size
  np.testing.assert_array_equal(found.restarts[1].picture, picture(32, 80, 1))
  # Pictures of the same stem are told apart.
  names = [prediction.name for prediction in found.predictions]
  assert names == [str(paths[0]), str(paths[1]), "cat"]
  np.testing.assert_array_equal(found.predictions[2].probability, picture(seed=2)[..., 0] / 255)


# The command.


def test_the_report_of_one_run_goes_to_its_workdir_or_where_one_says(searched, tmp_path):
  assert report_command.make([str(searched)], None) == searched / "report.html"
  assert (
    report_command.make([str(searched)], str(tmp_path / "other.html")) == tmp_path / "other.html"
  )
  text = (searched / "report.html").read_text("utf-8")
  assert "faces" in text and text == (tmp_path / "other.html").read_text("utf-8")


@pytest.mark.parametrize(
  ("arguments", "output", "message"),
  [
    ([], None, "no run given.*RUN"),
    (["searched", "nowhere"], None, "nowhere is not the workdir.*no config.json"),
    (["nowhere"], None, "nowhere is not the workdir.*no config.json"),
    (["searched", "damaged"], None, "damaged.*config.json is damaged"),
    (["searched", "foreign"], None, "foreign.*does not hold the settings of a run"),
    (["searched", "./searched"], None, "searched is given twice"),
    (["searched", "lost"], None, "report.pictures of lost.*nothing.png is no file.*current folder"),
    (["searched"], "searched/config.json", "--output=searched/config.json: expected.*a page"),
  ],
)
def test_what_the_command_refuses_is_named_and_nothing_is_written(
  searched, monkeypatch, arguments, output, message
):
  root = searched.parent
  monkeypatch.chdir(root)
  write_config(root / "damaged")
  (root / "damaged" / "config.json").write_text("{")
  workdir.write_json(root / "foreign" / "config.json", {"name": "other"})
  write_config(root / "lost", report={"pictures": ["nothing.png"], "samples": 2})
  before = sorted(root.rglob("*"))
  for module in (report_command, comparison):
    monkeypatch.setattr(module, "collect", lambda *_: pytest.fail("work was done before the check"))
  with pytest.raises((OSError, ValueError), match=message):
    report_command.make(arguments, output)
  assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize(
  ("other", "status", "said"),
  [("begun", 0, "report: comparison.html"), ("nowhere", 1, "error: nowhere is not the workdir")],
)
def test_the_command(searched, other, status, said):
  write_config(searched.parent / "begun", seed=1)
  done = subprocess.run(
    [sys.executable, "-m", "unseg_jax.report", "searched", other],
    cwd=searched.parent,
    env=os.environ | {"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == status, done.stderr
  assert said in (done.stderr if status else done.stdout)
  assert "Traceback" not in done.stderr
  assert (searched.parent / "comparison.html").exists() == (status == 0)


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
  # Pictures have many colours; text alone, or an error page, has few.
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
