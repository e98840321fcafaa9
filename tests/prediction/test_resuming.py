"""`--resume` redoes images that changed under the same name, and reports it in one line."""

import dataclasses
import json
import os

import jax
import numpy as np
import pytest
from PIL import Image
from predicting import call, save

from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.prediction import manifest
from unseg_jax.segmentation import unet

FEATURES = (2, 4)


@pytest.fixture(scope="module")
def segmenter():
  """Returns a tiny segmenter with random weights."""
  network = unet.Unet(FEATURES)
  variables = network.init(jax.random.key(0), np.zeros((1, 16, 16, 3), np.float32))
  return Segmenter.create(jax.tree.map(np.asarray, variables), FEATURES, 16)


@pytest.fixture
def made(tmp_path, segmenter):
  """Writes images, a segmenter file and a background; returns a call of `predict --resume`."""
  photos, file, background = tmp_path / "photos", tmp_path / "s.safetensors", tmp_path / "b.png"
  for number in range(3):
    save(photos / f"{number}.png", seed=number)
  segmenter.save(file)
  save(background, seed=7)

  def resume(named=file, **options):
    before = mtimes(tmp_path)
    defaults = {"background": str(background), "kinds": ["mask"], "resume": True}
    status, said, rows = call(photos, tmp_path / "output", named, **(defaults | options))
    assert status == 0
    after = mtimes(tmp_path)
    anew = {path.name[0] for path, time in after.items() if time != before.get(path)}
    return anew, said, rows

  assert resume()[0] == {"0", "1", "2"}
  return tmp_path, resume


def mtimes(folder):
  return {path: path.stat().st_mtime_ns for path in (folder / "output").rglob("*.*g")}


def test_nothing_changed_and_nothing_is_made(made):
  anew, said, _ = made[1]()
  assert anew == set() and "redoing" not in said


def test_a_picture_that_changed_is_made_anew(made):
  folder, resume = made
  path = folder / "photos" / "1.png"
  before, status = path.read_bytes(), path.stat()
  path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))  # Still an image of the same length.
  os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
  anew, said, rows = resume()
  assert anew == {"1"} and said.count("redoing pictures: the picture changed (1)") == 1
  identity = rows[str(path)]["made of"]["input"]
  assert identity["bytes"] == len(before) and len(identity["sha256"]) == 64
  assert resume()[0] == set()


def test_another_segmenter_of_the_same_name_makes_all_anew(made, segmenter):
  folder, resume = made
  weights = jax.tree.map(lambda x: x + np.float32(0.1), segmenter.variables)
  dataclasses.replace(segmenter, variables=weights).save(folder / "s.safetensors")
  anew, said, _ = resume()
  assert anew == {"0", "1", "2"}
  assert said.count("redoing pictures: the segmenter changed (3)") == 1


def test_the_same_segmenter_of_another_name_makes_nothing_anew(made):
  folder, resume = made
  renamed = (folder / "s.safetensors").rename(folder / "renamed.safetensors")
  assert resume(renamed)[0] == set()


def test_another_background_makes_all_anew(made):
  folder, resume = made
  save(folder / "b.png", seed=8)
  anew, said, _ = resume()
  assert anew == {"0", "1", "2"} and said.count("redoing pictures: the background changed (3)") == 1


def test_other_settings_make_all_anew(made):
  anew, said, _ = made[1](average=True)
  assert anew == {"0", "1", "2"} and "redoing pictures: the settings changed (3)" in said


def test_outputs_of_two_segmenters_are_not_mixed(made, segmenter):
  folder, resume = made
  weights = jax.tree.map(lambda x: x + np.float32(0.1), segmenter.variables)
  dataclasses.replace(segmenter, variables=weights).save(folder / "s.safetensors")
  resume(background=None)  # Makes the masks; the composites are still those of the other segmenter.
  before = mtimes(folder)
  assert resume()[0] == {"0", "1", "2"}
  assert all(time != before[path] for path, time in mtimes(folder).items())


def test_results_of_an_earlier_version_are_kept_with_a_message(made):
  folder, resume = made
  path = folder / "output" / manifest.NAME
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  for row in rows:
    del row["made of"]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  anew, said, _ = resume()
  assert anew == set() and said.count("kept: 3 pictures of an earlier version") == 1
  assert resume(average=True)[0] == {"0", "1", "2"}
  assert "kept: " not in resume(average=True)[1]


def test_a_line_cut_in_the_middle_of_a_letter_is_passed_over(made):
  folder, resume = made
  part = folder / "output" / manifest.PARTS / "00000.jsonl"
  part.parent.mkdir()
  part.write_bytes('{"input": "é'.encode()[:-1])
  assert resume()[0] == set()
  assert not part.exists()


def test_a_picture_that_cannot_be_read_any_more_is_skipped(made, capsys):
  folder, resume = made
  path = folder / "photos" / "1.png"
  path.unlink()
  path.symlink_to("gone")
  with pytest.raises(AssertionError):  # The status is 1.
    resume()
  assert "1.png" in (folder / "output" / manifest.NAME).read_text()
  with Image.open(folder / "output" / "1_mask.png") as mask:
    assert mask.size == (9, 6)  # The existing output stays.
