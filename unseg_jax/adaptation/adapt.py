"""Adapts a segmenter to unlabelled images: it labels them and trains on its own masks.

If the segmenter is confident about an image, its mask is mostly right. Such images also show
content that generated images lack (self-training: Xie, Luong, Hovy, Le, CVPR 2020).
"""

import concurrent.futures
import functools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from unseg_jax.array_types import Array, Bool, Float, Key, UInt8
from unseg_jax.artifacts import checkpoints
from unseg_jax.errors import InvalidValue
from unseg_jax.inference import batched, refinement
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.inference.views import combine, resize_shorter_side
from unseg_jax.runtime import parallel, preemption, progress, settings, tracking
from unseg_jax.runtime.barrier import barrier
from unseg_jax.runtime.prefetch import prefetch, read_ahead
from unseg_jax.segmentation import batches, train
from unseg_jax.synthesis import records, shards
from unseg_jax.synthesis.records import Split

SHARD_PICTURES = 256  # Images per shard; labelled images reach the disk once per shard.
BATCH_SIZE = 8  # Views of one padded size per device and batch.
SPLIT = "train"

log = logging.getLogger(__name__)

# Yields the images from one index up to another.
Read = Callable[[int, int], Iterator[UInt8[np.ndarray, "_ _ 3"]]]


def check_config(config: ml_collections.ConfigDict) -> None:
  """Raises a ValueError for invalid settings in `config.adapt`."""
  settings.check_counts("adapt", config, "rounds", "steps")
  settings.check(
    "adapt",
    config,
    ("share", "a fraction of each batch above 0 and below 1", 0 < config.share < 1),
    ("confidence", "within [0, 1]", 0 <= config.confidence <= 1),
    ("learning_rate", "above 0", config.learning_rate > 0),
  )
  refinement.check_method(config.refine)


def adapt(
  config: ml_collections.ConfigDict,
  segmenter: Segmenter,
  pictures: tuple[int, Read],
  sources: Sequence[Split],
  weights: Sequence[float],
  validate: Callable[[Mapping[str, Any]], dict[str, float]],
  key: Key[Array, ""],
  folder: Path,
  worker_count: int = 0,
  events: tracking.EventWriter = tracking.SILENT,
  draw: Callable[[Mapping[str, Any]], UInt8[np.ndarray, "n h w 3"]] | None = None,
) -> None:
  """Labels the images and continues training with them, once per round.

  Args:
    config: an experiment's config; its `train` and `adapt` parts are used.
    segmenter: the trained segmenter.
    pictures: the number of images, and a function that reads them.
    sources: the splits of synthetic pairs.
    weights: the weights of these splits.
    validate: see `train.train`.
    key: the PRNG key of the adaptation.
    folder: receives `round-1/`, `round-2/` and so on. Each holds the labelled images as a data set
      and the output of `train`.
    worker_count: number of processes that read pairs; see `batches.from_disk`.
    events: receives the events of each round; see `train.train`.
    draw: see `train.train`.

  Raises:
    ValueError, FloatingPointError, preemption.Preempted: see `write_labelled` and `train.train`.
  """
  train_config, share = training_settings(config), config.adapt.share
  weights = [*(weight * (1 - share) / sum(weights) for weight in weights), share]
  for number in range(1, config.adapt.rounds + 1):
    round_folder, round_key = folder / f"round-{number}", parallel.fold_in(key, number)
    write_labelled(segmenter, *pictures, config.adapt, round_folder)
    splits = [*sources, shards.read(round_folder, SPLIT)]
    pairs = functools.partial(
      batches.from_disk, splits, weights, train_config, round_key, worker_count=worker_count
    )
    train.train(
      train_config,
      pairs,
      validate,
      round_key,
      round_folder,
      segmenter.variables,
      events.inside(round_folder.name),
      draw,
    )
    best = checkpoints.restore_best(round_folder / "checkpoints")
    segmenter = Segmenter.create(best, train_config.features, train_config.image_size)


def training_settings(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Returns an experiment's `config.train` with the steps and learning rate of a round."""
  changed = config.train.copy_and_resolve_references()
  changed.update({"steps": config.adapt.steps, "learning_rate": config.adapt.learning_rate})
  return changed


def write_labelled(
  segmenter: Segmenter,
  count: int,
  read: Read,
  config: ml_collections.ConfigDict,
  folder: Path,
) -> None:
  """Writes the images with confident masks as a data set of squares.

  Every process labels its own shards on all its devices, and keeps existing shards.

  Args:
    segmenter: predicts the masks, each averaged over the flip and `views.SCALES`.
    count: the number of images.
    read: yields the images.
    config: `config.adapt` of an experiment; `confidence` and `refine` are used.
    folder: receives the shards, then TFDS's metadata.

  Raises:
    ValueError: no image reaches the confidence threshold, or an image is unreadable.
    preemption.Preempted: the run was asked to stop; complete shards are kept.
  """
  total = math.ceil(count / SHARD_PICTURES)
  with progress.bar("label", count, unit="picture") as bar:
    for first in range(0, total, parallel.process_count()):
      index = first + parallel.process_index()
      path = shards.shard_path(folder, SPLIT, index)
      start, end = index * SHARD_PICTURES, min(count, (index + 1) * SHARD_PICTURES)
      if index < total and not shards.is_whole(path):
        _write_shard(segmenter, read, range(start, end), config, path)
      bar.update(min(count, (first + parallel.process_count()) * SHARD_PICTURES) - bar.n)
      if preemption.anyone_leaving():
        preemption.leave("the complete shards of labelled pictures are kept")
  barrier("every picture is labelled")
  _complete(segmenter.image_size, total, config.confidence, folder)


def _write_shard(
  segmenter: Segmenter,
  read: Read,
  indices: range,
  config: ml_collections.ConfigDict,
  path: Path,
) -> None:
  bits = shards.mask_bits(path.parent)
  label = functools.partial(_label, config=config, mask_bits=bits)
  depth = 2 * BATCH_SIZE * segmenter.device_count
  with (
    concurrent.futures.ThreadPoolExecutor(max_workers=1) as reader,
    concurrent.futures.ThreadPoolExecutor() as labellers,
  ):
    samples = read_ahead(reader, _samples(segmenter, read, indices), depth)
    views = ((sample, sample.views) for sample in samples)
    segmented = batched.logits(segmenter, views, BATCH_SIZE)
    labelled = list(prefetch(labellers, lambda sample: label(*sample), segmented, depth))
  labelled.sort(key=lambda picture: picture.number)  # Batches do not preserve the order.
  confidences = [picture.confidence for picture in labelled]
  kept = sum(value >= config.confidence for value in confidences)
  counts = {"candidates": len(indices), "accepted": {"confidence": kept}}
  counts |= {"range": [min(confidences), max(confidences)], "mask_bits": bits}
  pairs = [pair for picture in labelled for pair in picture.pairs]
  shards.write_shard(path, pairs, counts)


class _Sample(NamedTuple):
  """An image prepared for the network.

  Attributes:
    number: its index among the images.
    small: the image at the training size.
    views: its views, in the network's input format.
  """

  number: int
  small: UInt8[np.ndarray, "h w 3"]
  views: Sequence[UInt8[np.ndarray, "_ _ 3"]]


class _Labelled(NamedTuple):
  """A labelled image: its confidence, and its serialised pairs if that is high enough."""

  number: int
  confidence: float
  pairs: list[bytes]


def _samples(segmenter: Segmenter, read: Read, indices: range) -> Iterator[_Sample]:
  for index, image in zip(indices, read(indices.start, indices.stop), strict=True):
    small = resize_shorter_side(image, segmenter.image_size)
    yield _Sample(index, small, segmenter.views(image, average=True))


def _label(
  sample: _Sample,
  logits: Sequence[Float[np.ndarray, "_ _"]],
  config: ml_collections.ConfigDict,
  mask_bits: int,
) -> _Labelled:
  small = sample.small
  probability = combine(logits, small.shape[:2])
  certainty = confidence(probability)
  if certainty < config.confidence:
    return _Labelled(sample.number, certainty, [])
  mask = refinement.refine(probability, small, config.refine) > 0.5
  return _Labelled(
    sample.number,
    certainty,
    [
      records.encode(*square, label=0, candidate=sample.number, mask_bits=mask_bits)
      for square in squares(small, mask)
    ],
  )


def _complete(image_size: int, total: int, least: float, folder: Path) -> None:
  """Writes the metadata; raises a ValueError if no image was kept."""
  counts = [shards.read_counts(shards.shard_path(folder, SPLIT, i)) for i in range(total)]
  lengths = [count["records"] for count in counts]
  if not sum(lengths):
    lowest = min(count["range"][0] for count in counts)
    highest = max(count["range"][1] for count in counts)
    raise InvalidValue(
      f"no picture reached the confidence threshold: the confidences are between {lowest:.3f} and "
      f"{highest:.3f}, but config.adapt.confidence={least} is required. Inspect the "
      f"segmenter's masks of these pictures, then delete {folder.parent} and lower the threshold."
    )
  pictures = sum(count["candidates"] for count in counts)
  kept = sum(count["accepted"]["confidence"] for count in counts)
  log.info(
    "kept %d of %d pictures by their confidence, as %d squares", kept, pictures, sum(lengths)
  )
  if parallel.is_primary():
    description = f"Squares of {kept} of {pictures} pictures, with a segmenter's masks."
    shards.write_metadata(folder, image_size, {SPLIT: lengths}, description)
  barrier("the labelled pictures are complete")


def confidence(probability: Float[np.ndarray, "h w"]) -> float:
  """Returns the confidence in an image's mask: the mean of |2 p - 1| over pixels, in [0, 1]."""
  return float(np.abs(2 * probability - 1).mean(dtype=np.float64))


def squares(
  image: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]
) -> Iterator[tuple[UInt8[np.ndarray, "s s 3"], Bool[np.ndarray, "s s"]]]:
  """Cuts a pair into the fewest squares that cover it, spaced evenly along its longer side.

  Args:
    image: the image.
    mask: its mask.

  Yields:
    Square parts of the image and the mask, with the side of the image's shorter side.
  """
  height, width = mask.shape
  side = min(height, width)
  count = math.ceil(max(height, width) / side)
  tops, lefts = (np.linspace(0, length - side, count).round().astype(int) for length in mask.shape)
  for top, left in zip(tops, lefts, strict=True):
    part = slice(top, top + side), slice(left, left + side)
    yield image[part], mask[part]
