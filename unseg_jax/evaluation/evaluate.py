"""Stage 4: how good a segmenter is, on held-out synthetic pairs and on real pictures."""

import collections
import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

import ml_collections
import numpy as np

from unseg_jax.evaluation import baselines, benchmarks, folders, metrics, saliency, tfds_source
from unseg_jax.evaluation.source import Source
from unseg_jax.runtime import places
from unseg_jax.segmentation import refinement
from unseg_jax.segmentation.segmenter import Segmenter, combine, padded_size

Pair = tuple[np.ndarray, np.ndarray]
Answer = Callable[[tuple[int, int]], np.ndarray]  # A probability from a picture's size alone.
SEGMENTER = "segmenter"  # What `compare` calls the segmenter.
SYNTHETIC = "synthetic"  # What the table calls the held-out generated pairs.
BEFORE = " (before adapting)"  # What it adds for the segmenter that was adapted later.


def data_sets(config: ml_collections.ConfigDict) -> dict[str, Collection[Pair]]:
  """Opens every real data set that an experiment's config lists, by name.

  Args:
    config: the experiment's; `config.evaluate.benchmarks`, `.folders` and `.tfds` list them.

  Raises:
    FileNotFoundError: a data set is not there.
    ValueError: a name is given twice or unknown, or files of a folder are unpaired.
  """
  found, data_root = {}, places.local(config.data_root) if config.data_root else None

  def add(name: str, source: Source, crop: bool) -> None:
    if name in found or name.split(" ")[0] == SYNTHETIC or name.endswith(BEFORE):
      raise ValueError(f"config.evaluate: the name {name!r} is taken; choose another")
    found[name] = _Pairs(source, crop)

  for name in config.evaluate.benchmarks:
    benchmark = benchmarks.get(name)
    add(name, benchmarks.open_pairs(benchmark, data_root or "."), benchmark.crop)
  for name, images, masks, crop in config.evaluate.folders:
    add(name, folders.open_pairs(images, masks), crop)
  for name, data_set, split, image, mask, crop in config.evaluate.tfds:
    add(name, tfds_source.open_pairs(data_set, split, image, mask, data_dir=data_root), crop)
  return found


@dataclasses.dataclass(frozen=True)
class _Pairs:
  """A data set's pairs without their names, each cropped to its central square if wanted."""

  source: Source
  crop: bool

  def __len__(self) -> int:
    return len(self.source)

  def __iter__(self) -> Iterator[Pair]:
    for _, image, mask in self.source:
      yield (central_square(image), central_square(mask)) if self.crop else (image, mask)


def central_square(array: np.ndarray) -> np.ndarray:
  """Crops `[H, W, ...]` to the square in its middle."""
  height, width = array.shape[:2]
  side = min(height, width)
  top, left = round((height - side) / 2), round((width - side) / 2)
  return array[top : top + side, left : left + side]


def evaluate(
  segmenter: Segmenter,
  pairs: Iterable[Pair],
  batch_size: int = 8,
  refine: str = "none",
  with_saliency: bool = False,
  average: bool = False,
) -> dict[str, float]:
  """Scores a segmenter at the masks' full resolution; see `compare`."""
  return compare(segmenter, pairs, batch_size, refine, with_saliency, average, {})[SEGMENTER]


def compare(
  segmenter: Segmenter,
  pairs: Iterable[Pair],
  batch_size: int = 8,
  refine: str = "none",
  with_saliency: bool = False,
  average: bool = False,
  beside: Mapping[str, Answer] = baselines.BASELINES,
) -> dict[str, dict[str, float]]:
  """Scores a segmenter, and answers that look at no picture, at the masks' full resolution.

  Pictures are read and scored on other threads than the one that runs the network. Every picture
  is scored alone and the averages are taken in the pairs' order, so that neither the batch size
  nor the order in which batches fill up changes the result.

  Args:
    segmenter: the segmenter.
    pairs: images `[H, W, 3]` uint8 with masks `[H, W]` bool.
    batch_size: how many pictures of one padded size go through the network together.
    refine: one of `refinement.METHODS`.
    with_saliency: whether to add the metrics of `saliency.NAMES`.
    average: whether to average over several views of each picture (`Segmenter.views`).
    beside: answers that look at no picture, by name, such as `baselines.BASELINES`.

  Returns:
    For `SEGMENTER`, and for each answer beside it, the metrics of `metrics.aggregate`, and those
    added.

  Raises:
    ValueError: there is no pair.
  """
  score = functools.partial(_score, refine=refine, with_saliency=with_saliency, beside=beside)
  waiting: dict[tuple[int, int], list[tuple[_Sample, int]]] = {}
  scores: list[tuple[int, concurrent.futures.Future]] = []
  with (
    concurrent.futures.ThreadPoolExecutor(max_workers=1) as reader,
    concurrent.futures.ThreadPoolExecutor() as scorer,
  ):

    def run(views: list[tuple[_Sample, int]]) -> None:
      # Filled up with copies: another batch size would compile the network again.
      images = [sample.views[number] for sample, number in views]
      images += images[:1] * (batch_size - len(images))
      for (sample, number), logits in zip(views, segmenter.small_logits(images), strict=False):
        sample.logits[number] = logits
        if len(sample.logits) == len(sample.views):
          scores.append((sample.number, scorer.submit(score, sample)))

    samples = _samples(segmenter, pairs, refine != "none", average)
    for sample in _ahead(samples, reader, 2 * batch_size):
      for number, view in enumerate(sample.views):
        size = padded_size(view)
        waiting.setdefault(size, []).append((sample, number))
        if len(waiting[size]) == batch_size:
          run(waiting.pop(size))
    for views in waiting.values():
      run(views)
    scores.sort(key=lambda entry: entry[0])
    found = [future.result() for _, future in scores]
  if not found:
    raise ValueError("a segmenter is scored on at least one image, got none")
  return {name: _averages([scored[name] for scored in found], with_saliency) for name in found[0]}


class _Sample(NamedTuple):
  number: int
  views: list[np.ndarray]  # Of the image, as the network takes it.
  logits: dict[int, np.ndarray]  # Of each view, as they come.
  image: np.ndarray | None  # At full resolution, where a refinement needs it.
  mask: np.ndarray


def _samples(
  segmenter: Segmenter, pairs: Iterable[Pair], keep_images: bool, average: bool
) -> Iterator[_Sample]:
  for number, (image, mask) in enumerate(pairs):
    views = segmenter.views(image, average)
    yield _Sample(number, views, {}, image if keep_images else None, mask)


# An image's scores: the paper's, and those added.
_Scores = tuple[metrics.ImageScores, dict[str, float]]


def _score(
  sample: _Sample,
  refine: str,
  with_saliency: bool,
  beside: Mapping[str, Answer],
) -> dict[str, _Scores]:
  shape = sample.mask.shape
  probability = combine([sample.logits[i] for i in range(len(sample.views))], shape)
  if sample.image is not None:
    probability = refinement.refine(probability, sample.image, refine)
  probabilities = {SEGMENTER: probability} | {name: say(shape) for name, say in beside.items()}
  return {
    name: (
      metrics.image_scores(probability, sample.mask),
      saliency.saliency_scores(probability, sample.mask) if with_saliency else {},
    )
    for name, probability in probabilities.items()
  }


def _averages(scores: list[_Scores], with_saliency: bool) -> dict[str, float]:
  averages = metrics.aggregate([score for score, _ in scores])
  return averages | (saliency.aggregate([s for _, s in scores]) if with_saliency else {})


def _ahead(
  items: Iterator[_Sample], reader: concurrent.futures.Executor, depth: int
) -> Iterator[_Sample]:
  """Yields the items while up to `depth` more are made on the reader's one thread."""
  end = object()
  futures = collections.deque(reader.submit(next, items, end) for _ in range(depth))
  while (item := futures.popleft().result()) is not end:
    futures.append(reader.submit(next, items, end))
    yield item
