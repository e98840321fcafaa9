"""TensorBoard events of a run, by clu."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from unseg_jax.array_types import UInt8
from unseg_jax.storage import places


class EventWriter:
  """Writes curves and pictures to `folder` as TensorBoard events."""

  def __init__(self, folder: Path) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Imported late: TensorFlow takes seconds, and prediction does not need it.
    import tensorflow as tf

    # TensorFlow only writes files here; without this it would take the accelerators' memory.
    for kind in ("GPU", "TPU"):
      tf.config.set_visible_devices([], kind)
    from clu import metric_writers

    self._folder = folder
    self._writer = metric_writers.SummaryWriter(str(folder))

  def curves(self, stage: str, history: Mapping[str, Sequence[float]]) -> None:
    """Writes every curve of a history over its `step`."""
    for name, values in history.items():
      if name != "step":
        for step, value in zip(history["step"], values, strict=True):
          self._writer.write_scalars(int(step), {f"{stage}/{name}": value})
    self._flush()

  def picture(self, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes one picture."""
    self._writer.write_images(0, {name: image[None]})
    self._flush()

  def scalars(self, scalars: Mapping[str, float]) -> None:
    """Writes the final values."""
    self._writer.write_scalars(0, dict(scalars))
    self._flush()

  def _flush(self) -> None:
    self._writer.flush()
    places.publish_folder(self._folder)
