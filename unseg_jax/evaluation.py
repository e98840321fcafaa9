"""Stage 4: how good a segmenter is, on held-out synthetic pairs and on real pictures."""

import collections
import concurrent.futures
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unseg_jax import metrics
from unseg_jax.data import folder
from unseg_jax.segmenter import Segmenter, foreground, padded_size, resize_shorter_side

Pair = tuple[np.ndarray, np.ndarray]


def synthetic_pairs(source: Sequence[Mapping[str, Any]]) -> Iterator[Pair]:
  """The pairs of a generated split: `[S, S, 3]` uint8 and `[S, S]` bool."""
  for i in range(len(source)):
    record = source[i]
    yield record["image"], record["mask"][..., 0] > 127


def folder_pairs(images: str, masks: str, crop: bool) -> Iterator[Pair]:
  """The pictures of one folder beside the masks of another, paired by stem.

  Args:
    images: folder of pictures.
    masks: folder of masks of the same sizes.
    crop: whether to evaluate the central square only, as the paper does for birds and flowers.

  Raises:
    FileNotFoundError, ValueError: a folder is missing, files are unpaired, unreadable, or of
      different sizes.
  """
  for image_path, mask_path in folder.paired(Path(images), Path(masks)):
    image, mask = folder.read_pair(image_path, mask_path)
    yield (central_square(image), central_square(mask)) if crop else (image, mask)


def central_square(array: np.ndarray) -> np.ndarray:
  """Crops `[H, W, ...]` to the square in its middle."""
  height, width = array.shape[:2]
  side = min(height, width)
  top, left = round((height - side) / 2), round((width - side) / 2)
  return array[top : top + side, left : left + side]


def evaluate(segmenter: Segmenter, pairs: Iterable[Pair], batch_size: int = 8) -> dict[str, float]:
  """Scores a segmenter at the masks' full resolution.

  Pictures are read and scored on other threads than the one that runs the network. Every picture
  is scored alone and the averages are taken in the pairs' order, so that neither the batch size
  nor the order in which batches fill up changes the result.

  Args:
    segmenter: the segmenter.
    pairs: images `[H, W, 3]` uint8 with masks `[H, W]` bool.
    batch_size: how many pictures of one padded size go through the network together.

  Returns:
    `accuracy`, `iou`, `f_beta` and `f_max`, as `metrics.aggregate` defines them.

  Raises:
    ValueError: there is no pair.
  """
  waiting: dict[tuple[int, int], list[_Sample]] = {}
  scores: list[tuple[int, concurrent.futures.Future]] = []
  with (
    concurrent.futures.ThreadPoolExecutor(max_workers=1) as reader,
    concurrent.futures.ThreadPoolExecutor() as scorer,
  ):

    def run(samples: list[_Sample]) -> None:
      # Filled up with copies: another batch size would compile the network again.
      images = [sample.image for sample in samples]
      images += images[:1] * (batch_size - len(images))
      for sample, logits in zip(samples, segmenter.small_logits(images), strict=False):
        scores.append((sample.number, scorer.submit(_score, logits, sample.mask)))

    for sample in _ahead(_samples(segmenter, pairs), reader, 2 * batch_size):
      size = padded_size(sample.image)
      waiting.setdefault(size, []).append(sample)
      if len(waiting[size]) == batch_size:
        run(waiting.pop(size))
    for samples in waiting.values():
      run(samples)
    scores.sort(key=lambda entry: entry[0])
    return metrics.aggregate([future.result() for _, future in scores])


class _Sample(NamedTuple):
  number: int
  image: np.ndarray  # As small as the network takes it.
  mask: np.ndarray


def _samples(segmenter: Segmenter, pairs: Iterable[Pair]) -> Iterator[_Sample]:
  for number, (image, mask) in enumerate(pairs):
    yield _Sample(number, resize_shorter_side(image, segmenter.image_size), mask)


def _score(logits: np.ndarray, mask: np.ndarray) -> metrics.ImageScores:
  return metrics.image_scores(foreground(logits, mask.shape), mask)


def _ahead(
  items: Iterator[_Sample], reader: concurrent.futures.Executor, depth: int
) -> Iterator[_Sample]:
  """Yields the items while up to `depth` more are made on the reader's one thread."""
  end = object()
  futures = collections.deque(reader.submit(next, items, end) for _ in range(depth))
  while (item := futures.popleft().result()) is not end:
    futures.append(reader.submit(next, items, end))
    yield item
