"""Stage 4: how good a segmenter is, on held-out synthetic pairs and on real pictures."""

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

Pair = tuple[UInt8[np.ndarray, "_ _ 3"], Bool[np.ndarray, "_ _"]]  # A picture and its mask.
# A probability from a picture's (height, width) alone.
Answer = Callable[[tuple[int, int]], Float[np.ndarray, "h w"]]
SEGMENTER = "segmenter"  # What `compare` calls the segmenter.
SYNTHETIC = "synthetic"  # What the table calls the held-out generated pairs.
BEFORE = " (before adapting)"  # What it adds for the segmenter that was adapted later.


def data_sets(config: ml_collections.ConfigDict) -> dict[str, "Pairs"]:
  """Opens every real data set that an experiment's config lists, by name.

  Args:
    config: the experiment's; `config.evaluate.benchmarks`, `.folders` and `.tfds` list them.

  Raises:
    FileNotFoundError: a data set is missing.
    ValueError: a name is given twice or unknown, or files of a folder are unpaired.
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
  """This process's share of a data set, without names.

  Attributes:
    source: the whole data set.
    crop: whether to crop pictures and masks to their central squares.
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
  """Crops a picture or a mask to the square in its middle."""
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

  The network runs on all devices, while other threads read and score pictures. Every process scores
  its own pairs, and gets the averages over the pairs of all. Every picture is scored alone and the
  averages are exact: neither the batch size nor the number of devices and processes changes them.

  Args:
    segmenter: the segmenter.
    pairs: pictures with masks; of several processes, each gives its share.
    batch_size: the number of pictures of one padded size that each device takes at a time.
    refine: one of `refinement.METHODS`.
    with_saliency: whether to add the metrics of `saliency.NAMES`.
    average: whether to average over several views of each picture (`Segmenter.views`).
    beside: answers that look at no picture, by name, such as `baselines.BASELINES`.

  Returns:
    For `SEGMENTER`, and for each answer beside it, the metrics of `metrics.aggregate`, and those
    added.

  Raises:
    ValueError: no process has a pair.
    preemption.Preempted: the process, the only one, was asked to leave.
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
        preemption.leave("the evaluation begins anew")
  rows = [np.concatenate([scored[name] for name in names]) for scored in scores]
  width = metrics.ROW + with_saliency * len(saliency.NAMES)
  all_rows = parallel.gather_rows(np.reshape(rows, (-1, len(names) * width)))
  if not len(all_rows):
    raise InvalidValue("a segmenter is scored on at least one image, got none")
  return dict(zip(names, map(_averages, np.split(all_rows, len(names), axis=1)), strict=True))


class _Sample(NamedTuple):
  """A pair for the network.

  Attributes:
    views: of the picture, as the network takes them.
    image: the picture at full resolution, where a refinement needs it.
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
  """The numbers of an image for each answer: those of `metrics.ImageScores`, and those added."""
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
