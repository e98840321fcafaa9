"""Reading of pictures and writing of outputs, as in `predict`."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common.photographs import make_pictures
from host_parts import cost
from host_parts.cost import Cost
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.prediction import outputs, run
from unseg_jax.prediction.inputs import Picture
from unseg_jax.prediction.pictures import Work

# The number of different files; they are read repeatedly.
FILES = 64
IMAGE_SIZE = 128


def without_network() -> Segmenter:
  """Returns a segmenter whose logits are 0 and cost nothing but the padding of its batches."""
  return Segmenter({}, IMAGE_SIZE, lambda _, images, sizes: np.zeros(images.shape[:3], np.float32))


def predict(size: int, worker_count: int, count: int, folder: Path) -> Cost:
  """Returns the cost of a picture in `predict`, with its three default outputs."""
  pictures, output = folder / "pictures", folder / "output"
  if not pictures.exists():
    folder.mkdir(parents=True)
    make_pictures(pictures, FILES, (size, size))
  output.mkdir(exist_ok=True)
  work = Work(
    image_size=IMAGE_SIZE,
    average=False,
    refine="none",
    kinds=outputs.KINDS,
    background=None,
    animate=False,
    output=str(output),
    made_by="",
    made_of={},
  )
  first = run.BATCH_SIZE * (2 + 4 * worker_count)  # Until every worker has imported its modules.
  files = itertools.cycle(sorted(pictures.iterdir()))
  wanted = [
    Picture(str(path), f"{number:06}")
    for number, path in enumerate(itertools.islice(files, first + count))
  ]
  rows = run.segment(without_network(), work, wanted, len(wanted), worker_count)
  _take(first, rows)
  return cost.measure(count, lambda: _take(count, rows))


def _take(count: int, rows: Iterator[dict]) -> None:
  for row in itertools.islice(rows, count):
    assert "skipped" not in row, row
