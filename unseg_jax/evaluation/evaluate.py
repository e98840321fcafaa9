"""Stage 4 scores a segmenter on held-out synthetic pairs and on real images."""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from unseg_jax.array_types import Bool, Float, Shaped, UInt8
from unseg_jax.errors import InvalidValue
from unseg_jax.evaluation import baselines, benchmarks, folders, metrics, saliency, tfds_source
from unseg_jax.evaluation.source import Source
from unseg_jax.inference import batched, refinement
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.inference.views import combine
from unseg_jax.runtime import parallel, preemption
from unseg_jax.runtime.prefetch import prefetch, read_ahead
from unseg_jax.storage import places
from unseg_jax.synthesis import shards

Pair = tuple[UInt8[np.ndarray, "_ _ 3"], Bool[np.ndarray, "_ _"]]  # An image and its mask.
# Returns a probability for an image of the given (height, width) without seeing the image.
Answer = Callable[[tuple[int, int]], Float[np.ndarray, "h w"]]
SEGMENTER = "segmenter"  # The segmenter's name in `compare`.
SYNTHETIC = "synthetic"  # The name of the held-out generated pairs in the table.
BEFORE = " (before adapting)"  # Suffix for the scores of the segmenter before adaptation.


def data_sets(config: ml_collections.ConfigDict) -> dict[str, "Pairs"]:
  """Opens all real data sets in an experiment's config, by name.

  Args:
    config: the experiment's config; it lists the data sets in `config.evaluate.benchmarks`,
      `.folders` and `.tfds`.

  Raises:
    FileNotFoundError: a data set is missing.
    ValueError: a name is duplicate or unknown, or files in a folder are unpaired.
  """
  opened: dict[str, Pairs] = {}
  data_root = places.local(config.data_root) if config.data_root else None

  def add(name: str, source: Source, crop: bool) -> None:
    if name in opened or is_synthetic(name) or name.endswith(BEFORE):
      raise InvalidValue(f"config.evaluate: the name {name!r} is taken; choose another")
    opened[name] = Pairs(source, crop)

  for name in config.evaluate.benchmarks:
    benchmark = benchmarks.get(name)
    add(name, benchmarks.open_pairs(benchmark, data_root or "."), benchmark.crop)
  for name, images, masks, crop in config.evaluate.folders:
    add(name, folders.open_pairs(images, masks), crop)
  for name, data_set, split, image, mask, crop in config.evaluate.tfds:
    add(name, tfds_source.open_pairs(data_set, split, image, mask, data_dir=data_root), crop)
  return opened


@dataclasses.dataclass(frozen=True)
class Pairs:
  """This process's share of the pairs of a data set.

  Attributes:
    source: the full data set.
    crop: whether to crop images and masks to their central squares.
  """

  source: Source
  crop: bool

  def __len__(self) -> int:
    return len(parallel.own_indices(len(self.source)))

  def __iter__(self) -> Iterator[Pair]:
    own = parallel.own_indices(len(self.source))
    for _, image, mask in self.source.read(own.start, own.step):
      yield (central_square(image), central_square(mask)) if self.crop else (image, mask)


@dataclasses.dataclass(frozen=True)
class HeldOut:
  """This process's share of synthetic pairs that training does not see.

  Attributes:
    source: the entire split, `validation` or `test`, as `shards.read` opens it.
  """

  source: Sequence[Any]

  def __len__(self) -> int:
    return len(parallel.own_indices(len(self.source)))

  def __iter__(self) -> Iterator[Pair]:
    return shards.pairs(self.source, parallel.own_indices(len(self.source)))


def is_synthetic(name: str) -> bool:
  """Whether a row of the table is about synthetic pairs: real data sets have no such names."""
  return name.split(" ")[0] == SYNTHETIC


def central_square(
  array: Shaped[np.ndarray, "h w ..."],
) -> Shaped[np.ndarray, "side side ..."]:
  """Crops an image or a mask to its central square."""
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
  """Scores a segmenter at full mask resolution; see `compare`."""
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
  """Scores a segmenter and baselines at full mask resolution.

  The network runs on all devices while other threads read and score images. Every process scores
  its own pairs and receives the averages over the pairs of all processes. Images are scored
  independently and averages are exact, so the scores do not depend on the batch size or on the
  numbers of devices and processes.

  Args:
    segmenter: the segmenter.
    pairs: images with masks; each of several processes passes its share.
    batch_size: number of images of one padded size per device and batch.
    refine: one of `refinement.METHODS`.
    with_saliency: whether to add the metrics of `saliency.NAMES`.
    average: whether to average over several views of each image (`Segmenter.views`).
    beside: baselines by name, which ignore the image, such as `baselines.BASELINES`.

  Returns:
    For `SEGMENTER` and each baseline, the metrics of `metrics.aggregate` and any added metrics.

  Raises:
    ValueError: no process has a pair.
    preemption.Preempted: the only process was asked to stop.
  """
  score = functools.partial(_score, refine=refine, with_saliency=with_saliency, beside=beside)
  names = (SEGMENTER, *beside)
  with (
    concurrent.futures.ThreadPoolExecutor(max_workers=1) as reader,
    concurrent.futures.ThreadPoolExecutor() as scorer,
  ):
    read = _samples(segmenter, pairs, refine != "none", average)
    depth = 2 * batch_size * segmenter.device_count
    views = ((sample, sample.views) for sample in read_ahead(reader, read, depth))
    segmented = batched.logits(segmenter, views, batch_size)
    scores = []
    for scored in prefetch(scorer, lambda sample: score(*sample), segmented, depth):
      scores.append(scored)
      if preemption.leaving_alone():
        preemption.leave("the evaluation starts over")
  rows = [np.concatenate([scored[name] for name in names]) for scored in scores]
  width = metrics.ROW + with_saliency * len(saliency.NAMES)
  all_rows = parallel.gather_rows(np.reshape(rows, (-1, len(names) * width)))
  if not len(all_rows):
    raise InvalidValue("a segmenter is scored on at least one image, got none")
  return dict(zip(names, map(_averages, np.split(all_rows, len(names), axis=1)), strict=True))


class _Sample(NamedTuple):
  """A pair prepared for the network.

  Attributes:
    views: the views of the image, in the network's input format.
    image: the image at full resolution if refinement needs it, otherwise None.
    mask: its mask.
  """

  views: list[np.ndarray]
  image: np.ndarray | None
  mask: np.ndarray


def _samples(
  segmenter: Segmenter, pairs: Iterable[Pair], keep_images: bool, average: bool
) -> Iterator[_Sample]:
  for image, mask in pairs:
    yield _Sample(segmenter.views(image, average), image if keep_images else None, mask)


def _score(
  sample: _Sample,
  logits: list[np.ndarray],
  refine: str,
  with_saliency: bool,
  beside: Mapping[str, Answer],
) -> dict[str, np.ndarray]:
  """Returns an image's scores per prediction: those of `metrics.ImageScores` and added ones."""
  shape = sample.mask.shape
  probability = combine(logits, shape)
  if sample.image is not None:
    probability = refinement.refine(probability, sample.image, refine)
  answers = {name: answer(shape) for name, answer in beside.items()}
  return {
    name: _row(probability, sample.mask, with_saliency)
    for name, probability in ({SEGMENTER: probability} | answers).items()
  }


def _row(probability: np.ndarray, mask: np.ndarray, with_saliency: bool) -> np.ndarray:
  row = metrics.image_scores(probability, mask).row()
  if not with_saliency:
    return row
  added = saliency.saliency_scores(probability, mask)
  return np.concatenate([row, [added[name] for name in saliency.NAMES]])


def _averages(rows: np.ndarray) -> dict[str, float]:
  averages = metrics.aggregate([metrics.ImageScores.from_row(row[: metrics.ROW]) for row in rows])
  added = [dict(zip(saliency.NAMES, row[metrics.ROW :].tolist(), strict=False)) for row in rows]
  return averages | (saliency.aggregate(added) if added[0] else {})
