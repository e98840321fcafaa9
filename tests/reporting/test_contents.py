"""Reading a workdir, and the command that writes a page from it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_pages import METRICS, SECTIONS, disc, picture, webp, write_config

from unseg_jax import report as report_command
from unseg_jax.artifacts import stage_records
from unseg_jax.reporting import comparison, report, under_way
from unseg_jax.reporting import contents as contents_lib
from unseg_jax.storage import whole_files

ROOT = Path(__file__).parents[2]


@pytest.fixture
def searched(tmp_path):
  """The workdir of a run that stopped after its search."""
  folder = tmp_path / "searched"
  write_config(folder)
  whole_files.write_json(folder / "search" / "history.json", {"step": [0, 1], "loss": [2.0, 1.0]})
  Image.fromarray(picture(32, 80)).save(folder / "search" / "direction.png")
  return folder


def test_collects_what_an_unfinished_run_left(searched):
  collected = contents_lib.collect(
    searched, contents_lib.find_pictures(["example:astronaut_head.png"]), 2
  )
  assert collected.title == "faces" and collected.reference == {"ECSSD": {"iou": 0.7}}
  np.testing.assert_array_equal(collected.direction_picture, picture(32, 80))
  assert list(collected.curves) == ["Search"] and collected.curves["Search"]["loss"] == [2.0, 1.0]
  assert not (collected.samples or collected.filters or collected.metrics or collected.predictions)
  assert not (collected.restarts or collected.animation)
  assert "This workdir holds no synthetic pairs" in report.render(collected)


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
  whole_files.write_json(searched / "generate" / "filters.json", {"rates": {"all": 0.5}})
  whole_files.write_json(
    searched / "train" / "history.json", {"Training": {"step": [1], "loss": [3]}}
  )
  whole_files.write_json(searched / "metrics.json", {"ECSSD": METRICS})
  restarts = [{"restart": i, "chosen": i == 1, "loss": -0.5} for i in range(2)]
  whole_files.write_json(searched / "search" / "restarts.json", restarts)
  Image.fromarray(picture(32, 80, 1)).save(searched / "search" / "restart-1.png")
  (searched / "search" / "direction.webp").write_bytes(webp())
  paths = [searched.parent / name for name in ("one/head.png", "two/head.png", "two/cat.png")]
  for i, path in enumerate(paths):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(picture(seed=i)).save(path)

  collected = contents_lib.collect(searched, paths, 2)
  assert len(collected.samples) == 2
  np.testing.assert_array_equal(collected.samples[1][0], picture(seed=1))
  np.testing.assert_array_equal(collected.samples[1][1], disc())
  assert collected.filters == {"all": 0.5} and list(collected.curves) == ["Search", "Training"]
  assert collected.metrics == {"ECSSD": METRICS} and collected.animation == webp()
  assert [(r.name, r.chosen, r.scores) for r in collected.restarts] == [
    ("0", False, {"loss": -0.5}),
    ("1", True, {"loss": -0.5}),
  ]
  assert not collected.restarts[0].picture.size
  np.testing.assert_array_equal(collected.restarts[1].picture, picture(32, 80, 1))
  # Paths distinguish images of the same name.
  names = [prediction.name for prediction in collected.predictions]
  assert names == [str(paths[0]), str(paths[1]), "cat"]
  np.testing.assert_array_equal(collected.predictions[2].probability, picture(seed=2)[..., 0] / 255)


def test_says_what_a_run_under_way_has_and_how_old_it_is(searched):
  write_config(
    searched,
    search={"steps": 2},
    generate={"num_images": {"train": 100, "validation": 0, "test": 8}},
    train={"steps": 50},
  )
  for stage, complete in (("search", True), ("generate", False), ("train", False)):
    stage_records.begin_stage(searched / stage, {})
    if complete:
      stage_records.finish_stage(searched / stage)
  counts = {"records": 40, "candidates": 80, "accepted": {"all": 40, "area": 60}}
  name = "synthetic-train.array_record-00000.json"
  whole_files.write_json(searched / "generate" / "counts" / name, counts)
  whole_files.write_json(
    searched / "train" / "history.json", {"Training": {"step": [5, 10], "loss": [2, 1]}}
  )
  collected = contents_lib.collect(searched, [], 2)
  assert [stage.name for stage in collected.stages] == ["search", "generate", "train", "evaluate"]
  assert [line.rpartition(" (")[0] for line in under_way.describe(collected.stages)] == [
    "The stage generate is not complete: 40 of 100 train pairs, 0 of 8 test pairs",
    "The stage train is not complete: 10 of 50 steps at the last checkpoint",
  ]
  written = (searched / "train" / "history.json").stat().st_mtime
  later = under_way.describe(collected.stages, now=written + 600)
  assert later[1].endswith("(last write 10 minutes ago).")
  assert collected.filters == {"all": 0.5, "area": 0.75}
  page = report.render(collected)
  for state in ("<td>complete</td>", "<td>40 of 100 train pairs", "<td>not begun</td>"):
    assert state in page


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
    (
      ["searched", "lost"],
      None,
      "pictures of lost.*nothing.png is not a file.*current folder",
    ),
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
  whole_files.write_json(root / "foreign" / "config.json", {"name": "other"})
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
    timeout=300,
  )
  assert done.returncode == status, done.stderr
  assert said in (done.stderr if status else done.stdout)
  assert "Traceback" not in done.stderr
  assert (searched.parent / "comparison.html").exists() == (status == 0)
