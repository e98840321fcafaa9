"""Events for TensorBoard are written where TensorFlow is, and their absence is announced."""

import importlib.util
import logging

import numpy as np
from tensorboard.backend.event_processing import event_accumulator

from unseg_jax.runtime.tracking import EventWriter


def write_all(folder):
  writer = EventWriter(folder)
  writer.curves("train", {"step": [1, 2], "loss": [0.5, 0.25]})
  writer.picture("direction", np.zeros((4, 4, 3), np.uint8))
  writer.scalars({"iou": 0.75})


def test_curves_pictures_and_scalars_are_read_back(tmp_path):
  write_all(tmp_path)
  events = event_accumulator.EventAccumulator(str(tmp_path))
  events.Reload()
  assert {"train/loss", "iou"} <= set(events.Tags()["tensors"] + events.Tags()["scalars"])


def test_without_tensorflow_a_line_says_that_there_are_none(tmp_path, monkeypatch, caplog):
  find = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, "find_spec", lambda name: None if name == "tensorflow" else find(name)
  )
  with caplog.at_level(logging.WARNING):
    write_all(tmp_path)
  assert "TensorFlow is not installed" in caplog.text
  assert not list(tmp_path.iterdir())
