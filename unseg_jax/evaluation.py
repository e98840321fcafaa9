"""Stage 4: how good a segmenter is, on held-out synthetic pairs and on real pictures."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unseg_jax import metrics
from unseg_jax.data import folder
from unseg_jax.segmenter import Segmenter

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
    image, mask = folder.read_picture(image_path), folder.read_mask(mask_path)
    if image.shape[:2] != mask.shape:
      raise ValueError(
        f"{mask_path} is {mask.shape[1]} x {mask.shape[0]} pixels, its picture {image_path} is "
        f"{image.shape[1]} x {image.shape[0]}; masks must have the size of their pictures"
      )
    yield (central_square(image), central_square(mask)) if crop else (image, mask)


def central_square(array: np.ndarray) -> np.ndarray:
  """Crops `[H, W, ...]` to the square in its middle."""
  height, width = array.shape[:2]
  side = min(height, width)
  top, left = round((height - side) / 2), round((width - side) / 2)
  return array[top : top + side, left : left + side]


def evaluate(segmenter: Segmenter, pairs: Iterable[Pair]) -> dict[str, float]:
  """Scores a segmenter at the masks' full resolution.

  Args:
    segmenter: the segmenter.
    pairs: images `[H, W, 3]` uint8 with masks `[H, W]` bool.

  Returns:
    `accuracy`, `iou`, `f_beta` and `f_max`, as `metrics.aggregate` defines them.
  """
  scores = [
    metrics.image_scores(segmenter.probability(image, mask.shape), mask) for image, mask in pairs
  ]
  return metrics.aggregate(scores)
