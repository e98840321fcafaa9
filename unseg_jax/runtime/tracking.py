"""TensorBoard events of a run, by clu."""

import importlib.util
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unseg_jax.array_types import UInt8
from unseg_jax.storage import places

if TYPE_CHECKING:
  from clu.metric_writers import SummaryWriter

log = logging.getLogger(__name__)


class EventWriter:
  """Writes curves and pictures to a folder as TensorBoard events; says so where it cannot.

  clu writes them through TensorFlow, which not every machine with an accelerator has.
  """

  def __init__(self, folder: Path):
    self._folder = folder
    self._writer: SummaryWriter | None = None
    if importlib.util.find_spec("tensorflow") is None:
      log.warning("no TensorBoard events are written: TensorFlow is not installed")
      return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Imported late: TensorFlow takes seconds, and prediction does not need it.
    import tensorflow as tf

    # TensorFlow only writes files here; without this it would take the accelerators' memory.
    for kind in ("GPU", "TPU"):
      tf.config.set_visible_devices([], kind)
    from clu import metric_writers

    self._writer = metric_writers.SummaryWriter(str(folder))

  def curves(self, stage: str, history: Mapping[str, Sequence[float]]) -> None:
    """Writes every curve of a history over its `step`."""
    for name, values in history.items():
      if name != "step":
        for step, value in zip(history["step"], values, strict=True):
          if self._writer is not None:
            self._writer.write_scalars(int(step), {f"{stage}/{name}": value})
    self._flush()

  def picture(self, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes one picture."""
    if self._writer is not None:
      self._writer.write_images(0, {name: image[None]})
    self._flush()

  def scalars(self, scalars: Mapping[str, float]) -> None:
    """Writes the final values."""
    if self._writer is not None:
      self._writer.write_scalars(0, dict(scalars))
    self._flush()

  def _flush(self) -> None:
    if self._writer is not None:
      self._writer.flush()
      places.publish_folder(self._folder)
