"""Events for TensorBoard are written without TensorFlow, and their absence is announced."""

import importlib.util
import logging
import time

import event_files
import numpy as np
import pytest

from unseg_jax.runtime.tracking import SILENT, EventWriter, Stopwatch


def write_all(folder):
  writer = EventWriter(folder, "train")
  writer.restart(1)
  for step, loss in ((1, 0.5), (2, 0.25)):
    writer.point(step, {"loss": loss})
  writer.pictures(2, "masks", np.zeros((3, 4, 4, 3), np.uint8))
  writer.flush()
  return writer


def test_curves_and_pictures_are_there_before_the_writer_ends(tmp_path):
  writer = write_all(tmp_path)
  assert event_files.curves(tmp_path) == {"train/loss": [(1, 0.5), (2, 0.25)]}
  assert event_files.pictures(tmp_path) == {"train/masks": [2]}
  assert writer.inside("part")._folder == tmp_path / "part"


def test_a_stage_that_goes_on_leaves_no_point_twice(tmp_path):
  write_all(tmp_path)
  again = EventWriter(tmp_path, "train")
  again.restart(2)
  for step, loss in ((2, 0.25), (3, 0.125)):
    again.point(step, {"loss": loss})
  again.flush()
  assert event_files.curves(tmp_path) == {"train/loss": [(1, 0.5), (2, 0.25), (3, 0.125)]}


def test_what_writes_nothing_leaves_no_file(tmp_path):
  EventWriter(tmp_path).flush(publish=True)
  SILENT.restart(1)
  SILENT.point(1, {"loss": 1.0})
  SILENT.inside("part").pictures(1, "masks", np.zeros((3, 4, 4, 3), np.uint8))
  SILENT.flush()
  assert not list(tmp_path.iterdir())


def test_rates_count_the_time_that_waits():
  watch = Stopwatch()
  with watch.waiting():
    time.sleep(0.1)
  time.sleep(0.1)
  rates = watch.rates(steps=2, pictures=16)
  assert rates["pictures_per_second"] == pytest.approx(8 * rates["steps_per_second"])
  assert 0 < rates["steps_per_second"] <= 10 and 0.1 < rates["fraction_waiting"] < 0.9
  assert watch.rates(steps=1)["fraction_waiting"] == 0


def test_without_tensorboard_a_line_says_that_there_are_none(tmp_path, monkeypatch, caplog):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name)
  )
  with caplog.at_level(logging.WARNING):
    write_all(tmp_path)
  assert "TensorBoard is not installed" in caplog.text
  assert not list(tmp_path.iterdir())
