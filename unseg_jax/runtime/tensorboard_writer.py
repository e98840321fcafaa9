"""clu's interface of metric writers over TensorBoard's own record writer, without TensorFlow.

clu's `SummaryWriter` writes the same events through TensorFlow, an installation of 1.3 GB.
"""

import importlib.machinery
import importlib.util
import itertools
import os
import socket
import sys
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from unseg_jax.images import writing

# What the first event of each file says of its format.
FILE_VERSION = "brain.Event:2"

_numbers = itertools.count()


def _clu_interface() -> Any:
  """Returns the module `clu.metric_writers.interface`.

  Importing it by name first imports its package, and that imports TensorFlow
  (https://github.com/google/CommonLoopUtils/pull/358). It is therefore loaded from its file, under
  its own name: a program that imports the package as well gets the same `MetricWriter`.
  """
  name = "clu.metric_writers.interface"
  if name not in sys.modules:
    package = importlib.util.find_spec("clu.metric_writers")  # Finds it without importing it.
    assert package is not None
    spec = importlib.machinery.PathFinder.find_spec(name, package.submodule_search_locations)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[name] = module
  return sys.modules[name]


_MetricWriter: Any = _clu_interface().MetricWriter


class TensorBoardWriter(_MetricWriter):
  """A `clu.metric_writers.MetricWriter` that writes one new event file into a folder.

  The file is a local one. TensorBoard's `EventFileWriter` would open it through TensorFlow where
  that is installed, and take seconds to import it; its `RecordWriter` takes any file.
  """

  def __init__(self, folder: str | Path):
    """Makes the folder if it is missing, and the file in it.

    Raises:
      OSError: the file cannot be written.
    """
    # TensorBoard looks for `tfevents` in the name, and reads files in the order of their names.
    number = f"{next(_numbers):06d}"
    parts = (f"{int(time.time()):010d}", socket.gethostname(), os.getpid(), number)
    path = Path(folder) / ".".join(map(str, ("events.out.tfevents", *parts)))
    path.parent.mkdir(parents=True, exist_ok=True)
    self._records = RecordWriter(path.open("xb"))
    # Also when the last reference goes, or at the interpreter's exit.
    self._close = weakref.finalize(self, self._records.close)
    self._add(event_pb2.Event(file_version=FILE_VERSION))

  def write_restart(self, step: int) -> None:
    """Has TensorBoard discard the points from a step on that the folder's older files hold."""
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    self._add(event_pb2.Event(step=step, session_log=start))

  def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Writes a point of each curve."""
    for name, value in scalars.items():
      self._add_summary(step, scalar_pb(name, value))

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes pictures, uint8 `[N, H, W, 3]` or `[H, W, 3]`, losslessly."""
    for name, pictures in images.items():
      batch = pictures if pictures.ndim == 4 else pictures[None]
      height, width = batch.shape[1:3]
      # The image plugin's tensor: width, height, then the encoded pictures.
      texts = [str(width).encode(), str(height).encode(), *map(writing.png_bytes, batch)]
      metadata = image_metadata.create_summary_metadata(display_name=None, description=None)
      self.write_summaries(step, {name: np.array(texts, object)}, metadata)

  def write_summaries(
    self, step: int, values: Mapping[str, np.ndarray], metadata: Any = None
  ) -> None:
    """Writes tensors for the plugin that the metadata, a `SummaryMetadata` or its bytes, name."""
    if isinstance(metadata, bytes):
      metadata = summary_pb2.SummaryMetadata.FromString(metadata)
    for name, value in values.items():
      tensor = tensor_util.make_tensor_proto(value)
      summary = summary_pb2.Summary()
      summary.value.add(tag=name, metadata=metadata, tensor=tensor)
      self._add_summary(step, summary)

  def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
    """Writes texts, which TensorBoard shows as Markdown."""
    for name, text in texts.items():
      self._add_summary(step, text_pb(name, text))

  def write_histograms(
    self,
    step: int,
    arrays: Mapping[str, np.ndarray],
    num_buckets: Mapping[str, int] | None = None,
  ) -> None:
    """Writes histograms of arrays, of 30 buckets where `num_buckets` has no number."""
    for name, array in arrays.items():
      self._add_summary(step, histogram_pb(name, array, (num_buckets or {}).get(name)))

  def write_hparams(self, hparams: Mapping[str, Any]) -> None:
    """Writes hyper-parameters: numbers, booleans and texts by name."""
    self._add_summary(0, hparams_pb(dict(hparams)))

  def write_videos(self, step: int, videos: Mapping[str, np.ndarray]) -> None:
    """Raises a NotImplementedError: TensorBoard shows no videos."""
    raise NotImplementedError("TensorBoard shows no videos; write_images takes their frames")

  def write_audios(self, step: int, audios: Mapping[str, np.ndarray], *, sample_rate: int) -> None:
    """Raises a NotImplementedError: TensorBoard encodes sound through TensorFlow."""
    raise NotImplementedError("TensorBoard encodes sound through TensorFlow; use clu's own writer")

  def flush(self) -> None:
    """Puts everything written so far into the file."""
    self._records.flush()

  def close(self) -> None:
    """Flushes and closes the file."""
    self._close()

  def _add_summary(self, step: int, summary: Any) -> None:
    self._add(event_pb2.Event(step=step, summary=summary))

  def _add(self, event: Any) -> None:
    event.wall_time = time.time()
    self._records.write(event.SerializeToString())
