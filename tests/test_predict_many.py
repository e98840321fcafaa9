"""Many images: the manifest, several devices and processes, and interrupted runs."""

import json
import re
import signal
import time

import numpy as np
import pytest
from PIL import Image
from whole_runs import ROOT, finish, of_processes, run_module, start_python

from unseg_jax.predict import predict
from unseg_jax.prediction import manifest, pictures
from unseg_jax.prediction import run as run_lib
from unseg_jax.runtime import preemption

COMMAND = """
import runpy, sys
sys.argv = ["predict", *sys.argv[1:]]
runpy.run_module("unseg_jax.predict", run_name="__main__", alter_sys=True)
"""
SIZES = [(96, 64), (64, 64), (120, 80)]
COUNT = 21


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  folder = tmp_path_factory.mktemp("photos")
  source = Image.open(ROOT / "unseg_jax/pretrained/example/astronaut_head.png").convert("RGB")
  for number in range(COUNT):
    name = folder / ("inner" if number % 2 else ".") / f"{number:02}.png"
    name.parent.mkdir(exist_ok=True)
    source.rotate(7 * number).resize(SIZES[number % len(SIZES)]).save(name)
  (folder / "broken.jpg").write_text("no picture")
  return folder


@pytest.fixture(scope="module")
def expected(photos, tmp_path_factory):
  """The manifest of one process that segments all images in one run."""
  output = tmp_path_factory.mktemp("expected")
  assert predict("pretrained:faces", str(photos), str(output), False, kinds=["mask"]) == 1
  return output


def rows(folder):
  return [json.loads(line) for line in (folder / manifest.NAME).read_text().splitlines()]


def masks(folder):
  return {
    path.relative_to(folder).as_posix(): np.asarray(Image.open(path))
    for path in sorted(folder.rglob("*.png"))
  }


def assert_same(folder, expected):
  assert rows(folder) == rows(expected)
  written, wanted = masks(folder), masks(expected)
  assert written.keys() == wanted.keys()
  for name, mask in written.items():
    np.testing.assert_array_equal(mask, wanted[name], err_msg=name)
  assert not (folder / manifest.PARTS).exists()


def test_the_manifest_has_a_row_for_each_picture_in_order(photos, expected):
  manifest_rows = rows(expected)
  assert [row["input"] for row in manifest_rows] == sorted(map(str, photos.rglob("*.*")))
  skipped = [row for row in manifest_rows if "skipped" in row]
  assert [row["input"] for row in skipped] == [str(photos / "broken.jpg")]
  assert "its format is unknown" in skipped[0]["skipped"]
  row = next(row for row in manifest_rows if row["input"].endswith("inner/01.png"))
  mask = masks(expected)["inner/01_mask.png"]
  assert row["outputs"] == ["inner/01_mask.png"]
  assert (row["height"], row["width"]) == mask.shape == (64, 64)
  assert row["foreground"] == pytest.approx((mask > 0).mean(), abs=1e-4)
  assert len(masks(expected)) == COUNT


def test_a_second_run_adds_to_the_manifest(photos, expected, tmp_path):
  for name in ("00.png", "02.png", "02.png"):
    predict("pretrained:faces", str(photos / name), str(tmp_path), True, kinds=["mask"])
  wanted = {row["input"]: row for row in rows(expected)}
  assert rows(tmp_path) == [wanted[str(photos / name)] for name in ("00.png", "02.png")]


@pytest.fixture
def seen(monkeypatch):
  """Runs an action after a number of images are read."""
  read, names, at = pictures.read, [], {}

  def count(work, picture):
    names.append(picture.source)
    at.pop(len(names), lambda: None)()
    return read(work, picture)

  monkeypatch.setattr(pictures, "read", count)
  return names, at


def full():
  raise OSError(28, "No space left on device")


@pytest.mark.parametrize("stop", ["asked to leave", "full disk"])
def test_what_was_stopped_goes_on_where_it_was(photos, expected, tmp_path, monkeypatch, seen, stop):
  names, at = seen
  monkeypatch.setattr(run_lib, "BATCH_SIZE", 2)
  at[10] = full if stop == "full disk" else preemption._requested.set
  arguments = ("pretrained:faces", str(photos), str(tmp_path), False)
  try:
    with pytest.raises((OSError, preemption.Preempted), match=r"No space left|--resume skips them"):
      predict(*arguments, kinds=["mask"])
  finally:
    preemption._requested.clear()
  done = len(masks(tmp_path))
  assert 0 < done < COUNT
  names.clear()
  assert predict(*arguments, kinds=["mask"], resume=True) == 1
  # Outputs written before the stop may lack rows, by about a batch at most.
  assert COUNT + 1 - done <= len(names) < COUNT
  assert_same(tmp_path, expected)
  names.clear()
  assert predict(*arguments, kinds=["mask"], resume=True) == 1
  # The broken image is tried again, as it may have been repaired.
  assert names == [str(photos / "broken.jpg")]


def test_what_other_settings_made_is_made_anew(photos, expected, tmp_path, seen):
  names, _ = seen
  arguments = ("pretrained:faces", str(photos), str(tmp_path), False)
  predict(*arguments, kinds=["mask"], refine="guided")
  names.clear()
  predict(*arguments, kinds=["mask"], resume=True)
  assert len(names) == COUNT + 1
  assert_same(tmp_path, expected)


def test_unknown_outputs_are_refused_before_any_work(photos, tmp_path):
  with pytest.raises(ValueError, match="--outputs=halo: expected some of mask,cutout,overlay"):
    predict("pretrained:faces", str(photos), str(tmp_path / "out"), False, kinds=["mask", "halo"])
  with pytest.raises(ValueError, match="nothing to write"):
    predict("pretrained:faces", str(photos), str(tmp_path / "out"), False, kinds=[])
  assert not (tmp_path / "out").exists()


def test_processes_and_devices_share_the_work(photos, expected, tmp_path):
  arguments = [f"--input={photos}", f"--output={tmp_path}", "--outputs=mask"]
  started = [
    start_python(COMMAND, *arguments, **environment) for environment in of_processes(2, devices=2)
  ]
  done = [finish(process) for process in started]
  assert {process.returncode for process in done} <= {0, 1}, done
  shares = [re.search(r"(\d+) of (\d+) pictures", process.stdout).groups() for process in done]
  assert sum(int(share[1]) for share in shares) == COUNT + 1
  assert all(int(share[1]) == (COUNT + 1) / 2 for share in shares)
  assert_same(tmp_path, expected)


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(5))
def test_a_killed_run_misses_no_picture_and_makes_none_twice(photos, expected, tmp_path, moment):
  arguments = [f"--input={photos}", f"--output={tmp_path}", "--outputs=mask"]
  process = start_python(f"import time\n{COMMAND}", *arguments)
  deadline = time.monotonic() + 120
  while len(list(tmp_path.rglob("*.png"))) < 4 * moment and time.monotonic() < deadline:
    time.sleep(0.005)
  process.send_signal(signal.SIGKILL)
  finish(process)
  done = run_module("unseg_jax.predict", ROOT, *arguments, "--resume")
  assert done.returncode == 1, done.stderr
  assert_same(tmp_path, expected)
