"""`python -m unseg_jax.predict` as typed: its requirements and its output."""

import functools
import json
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from whole_runs import ROOT, run_module

EXAMPLE = ROOT / "unseg_jax" / "pretrained" / "example"

predict = functools.partial(run_module, "unseg_jax.predict")


@pytest.fixture
def folder(tmp_path):
  shutil.copy(EXAMPLE / "astronaut_head.png", tmp_path / "photo.png")
  return tmp_path


def test_a_photograph_alone_is_enough(folder):
  done = predict(folder, "--input=photo.png")
  assert done.returncode == 0, done.stderr
  mask = np.asarray(Image.open(folder / "segmented" / "photo_mask.png")) > 127
  expected = np.asarray(Image.open(EXAMPLE / "astronaut_head_mask.png").convert("L")) > 127
  assert (mask == expected).mean() > 0.8
  assert_only_progress(done)


def test_nothing_of_the_libraries_own_is_printed_for_a_run(folder, finished):
  done = predict(folder, "--input=photo.png", f"--segmenter={finished}", "--average")
  assert done.returncode == 0, done.stderr
  assert_only_progress(done)


def assert_only_progress(done):
  ours = r"predict: .*|\d+ of \d+ pictures segmented into \w+"
  lines = [line for line in re.split(r"[\r\n]+", done.stdout + done.stderr) if line.strip()]
  assert [line for line in lines if not re.fullmatch(ours, line.strip())] == []


def test_a_segmenter_that_is_not_there_is_named(folder):
  done = predict(folder, f"--segmenter={folder / 'missing'}", "--input=photo.png")
  assert done.returncode == 1
  assert str(folder / "missing") in done.stderr
  assert "Traceback" not in done.stderr


def test_names_that_are_no_text_and_long_ones_are_segmented_under_an_ascii_locale(folder):
  photos = folder / "photos"
  photos.mkdir()
  names = [b"caf\xe9.png", "é.png".encode(), b"x" * 236 + b".png"]
  for name in names:
    shutil.copy(folder / "photo.png", os.fsencode(photos) + b"/" + name)
  ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
  # Unreadable images are named, too.
  pathlib.Path(os.fsdecode(os.fsencode(photos) + b"/\xff\n.png")).touch()
  arguments = ["--input=photos", "--outputs=mask", os.fsdecode(b"--output=s\xe9")]
  done = predict(folder, *arguments, **ascii_only)
  assert done.returncode == 1 and "3 of 4 pictures segmented" in done.stdout, done.stderr
  assert "Traceback" not in done.stderr and r"skipped: photos/\udcff\n.png" in done.stderr
  output = os.fsencode(folder) + b"/s\xe9"
  with open(output + b"/predictions.jsonl", encoding="utf-8") as file:
    rows = [json.loads(line) for line in file]
  assert {os.fsencode(row["input"]) for row in rows} == {
    b"photos/" + name for name in [*names, b"\xff\n.png"]
  }
  for row in rows:
    assert "skipped" in row or os.path.exists(output + b"/" + os.fsencode(row["outputs"][0]))
  again = predict(folder, *arguments, "--resume")  # In another locale.
  assert again.returncode == 1 and "redoing" not in again.stderr
