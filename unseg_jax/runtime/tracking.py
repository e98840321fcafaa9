"""Writes TensorBoard events during a run, through clu's interface.

Each stage writes to its own folder, which TensorBoard shows as a run. A stage that continues
replaces only its own points.
"""

import contextlib
import importlib.util
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unseg_jax.array_types import UInt8
from unseg_jax.storage import places

if TYPE_CHECKING:
  from unseg_jax.runtime.tensorboard_writer import TensorBoardWriter

# Seconds between two uploads of the events to a bucket. Checkpoints upload them as well. Every
# upload sends the complete file.
PUBLISH_SECONDS = 60

log = logging.getLogger(__name__)


class EventWriter:
  """Writes curves and images to a folder as TensorBoard events.

  It logs a warning and writes nothing if TensorBoard is not installed. The first point creates the
  file.
  """

  def __init__(self, folder: Path | None, prefix: str = ""):
    """Sets the folder and the prefix of the curve names.

    Args:
      folder: receives the event file; None writes nothing, for all processes but one.
      prefix: such as `train`, for `train/loss`.
    """
    self._folder, self._prefix = folder, f"{prefix}/" if prefix else ""
    self._published = time.monotonic()
    self._writer: TensorBoardWriter | None = None
    self._is_open = False

  def inside(self, name: str) -> "EventWriter":
    """Returns a writer for a part of the stage, in a subfolder."""
    return EventWriter(self._folder and self._folder / name, f"{self._prefix}{name}")

  def restart(self, step: int) -> None:
    """Discards the points from a step on, which an interrupted run may have left."""
    if (writer := self._open()) is not None:
      writer.write_restart(step)

  def point(self, step: int, values: Mapping[str, float]) -> None:
    """Adds a point to each named curve."""
    if (writer := self._open()) is not None:
      writer.write_scalars(step, {self._prefix + name: value for name, value in values.items()})

  def pictures(self, step: int, name: str, images: UInt8[np.ndarray, "n h w 3"]) -> None:
    """Writes images, which TensorBoard shows side by side."""
    if (writer := self._open()) is not None:
      writer.write_images(step, {self._prefix + name: images})

  def flush(self, publish: bool = False) -> None:
    """Flushes the events, so that TensorBoard shows them.

    Args:
      publish: whether to upload them now if the folder belongs to a bucket; otherwise they are
        uploaded every `PUBLISH_SECONDS`.
    """
    if self._writer is None or self._folder is None:
      return
    self._writer.flush()
    if publish or time.monotonic() - self._published >= PUBLISH_SECONDS:
      places.publish_folder(self._folder)
      self._published = time.monotonic()

  def _open(self) -> "TensorBoardWriter | None":
    if self._folder is None or self._is_open:
      return self._writer
    self._is_open = True
    if importlib.util.find_spec("tensorboard") is None:
      log.warning("no TensorBoard events are written: TensorBoard is not installed")
      return None
    # Imported late: worker processes and predictions write no events.
    from unseg_jax.runtime.tensorboard_writer import TensorBoardWriter

    self._writer = TensorBoardWriter(self._folder)
    return self._writer


SILENT = EventWriter(None)


class Stopwatch:
  """Measures the speed of work and the fraction of time spent waiting."""

  def __init__(self) -> None:
    self.restart()

  def restart(self) -> None:
    """Discards the time since the last rates."""
    self._start, self._waited = time.perf_counter(), 0.0

  @property
  def seconds(self) -> float:
    """The seconds since the last rates."""
    return time.perf_counter() - self._start

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Counts the time inside the context as waiting."""
    start = time.perf_counter()
    yield
    self._waited += time.perf_counter() - start

  def rates(self, **counts: float) -> dict[str, float]:
    """Returns the speed and the fraction of waiting since the last rates, and restarts.

    Args:
      **counts: amounts of work done, by name.

    Returns:
      `NAME_per_second`, and `fraction_waiting`, in [0, 1].
    """
    seconds = max(self.seconds, 1e-9)
    rates = {f"{name}_per_second": count / seconds for name, count in counts.items()}
    rates["fraction_waiting"] = self._waited / seconds
    self.restart()
    return rates
