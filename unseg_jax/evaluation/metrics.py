"""The metrics of the paper's evaluation (arXiv 2105.08127), in float64 on the host.

`image_scores` scores one image, and `aggregate` scores a data set. All averages are over images, so
large and small images count equally.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from unseg_jax.array_types import Float

BETA_SQUARED = 0.3
THRESHOLDS = (np.arange(1, 255) / 255).astype(np.float32)
ROW = 4 + len(THRESHOLDS)  # Number of values per image.

Numbers = float | np.number | np.ndarray

# Index k holds threshold k, for k = 0 ... 255. Every probability exceeds the first, none the last.
_THRESHOLD_OF_LEVEL = np.concatenate([[-1.0], THRESHOLDS, [np.inf]]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class ImageScores:
  """The scores of one image, each in [0, 1].

  Attributes:
    accuracy: fraction of pixels where `probability > 0.5` equals the target.
    iou: intersection over union of `probability > 0.5` and the target; 0 if the union is empty.
    f_beta: F_beta of `probability > 0.5`.
    f_at_thresholds: F_beta of `probability > k / 255` for k = 1 ... 254.
    background_iou: IoU of the background; 0 if the union is empty.
  """

  accuracy: float
  iou: float
  f_beta: float
  f_at_thresholds: Float[np.ndarray, "254"]
  background_iou: float

  def row(self) -> Float[np.ndarray, "258"]:
    """Returns all scores in float64, as exchanged between processes."""
    alone = (self.accuracy, self.iou, self.f_beta, self.background_iou)
    return np.concatenate([alone, self.f_at_thresholds])

  @classmethod
  def from_row(cls, row: Float[np.ndarray, "258"]) -> "ImageScores":
    """Returns the scores from the result of `row`."""
    accuracy, iou, f_beta, background_iou = row[:4].tolist()
    return cls(accuracy, iou, f_beta, row[4:], background_iou)


def image_scores(probability: np.ndarray, target: np.ndarray) -> ImageScores:
  """Scores the prediction for one image.

  Args:
    probability: the foreground probability, `[H, W]` in [0, 1]; compared in float32.
    target: `[H, W]` bool, True in the foreground.

  Returns:
    The scores of the image.

  Raises:
    ValueError: the shapes differ, are not [H, W] or are empty; `target` is not bool; or a
      probability is NaN or outside [0, 1].
  """
  probability, target = checked(probability, target)
  prediction = probability > 0.5
  agreeing = np.count_nonzero(prediction == target)
  hits = np.count_nonzero(prediction & target)
  predicted = np.count_nonzero(prediction)
  positives = np.count_nonzero(target)
  union = predicted + positives - hits
  hits_above, predicted_above = _counts_above_thresholds(probability, target)
  return ImageScores(
    accuracy=agreeing / target.size,
    iou=hits / union if union else 0.0,
    f_beta=float(_f_beta(hits, predicted, positives)),
    f_at_thresholds=_f_beta(hits_above, predicted_above, positives),
    background_iou=(target.size - union) / (target.size - hits) if hits < target.size else 0.0,
  )


def aggregate(scores: Sequence[ImageScores]) -> dict[str, float]:
  """Averages the scores of a data set's images.

  The sums are exact before a single rounding. The result therefore does not depend on the order of
  the images, or on how batches, devices or processes share them.

  Args:
    scores: one entry per image, in any order.

  Returns:
    The paper's four metrics: `accuracy`, `iou` and `f_beta`, averaged over images, and `f_max`.
    `f_max` averages F_beta over images at each threshold and takes the maximum over thresholds.
    Two more metrics do not reward objects that fill the image: `background_iou`, and `miou`, the
    mean of both IoUs.

  Raises:
    ValueError: `scores` is empty.
  """
  if not scores:
    raise ValueError("aggregate needs the scores of at least one image, got none")
  iou = exact_mean([s.iou for s in scores])
  background_iou = exact_mean([s.background_iou for s in scores])
  return {
    "accuracy": exact_mean([s.accuracy for s in scores]),
    "iou": iou,
    "f_beta": exact_mean([s.f_beta for s in scores]),
    "f_max": max(map(exact_mean, np.stack([s.f_at_thresholds for s in scores], axis=1).tolist())),
    "background_iou": background_iou,
    "miou": (iou + background_iou) / 2,
  }


def exact_mean(values: Sequence[float]) -> float:
  """Returns the mean of at least one value, bitwise independent of the order of values."""
  return math.fsum(values) / len(values)


def checked(probability: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns both as arrays, with the probability in float32, if `image_scores` accepts them.

  Raises:
    ValueError: as in `image_scores`.
  """
  probability = np.asarray(probability, np.float32)
  target = np.asarray(target)
  if probability.shape != target.shape:
    raise ValueError(
      f"probability has shape {probability.shape} and target {target.shape}; "
      "resize the logits to the target before scoring"
    )
  if target.ndim != 2 or target.size == 0:
    raise ValueError(f"probability and target must be [H, W] of one image, got {target.shape}")
  if target.dtype != np.bool_:
    raise ValueError(f"target must be bool, got {target.dtype}; compare it with a threshold")
  if not (probability.min() >= 0 and probability.max() <= 1):
    raise ValueError(
      f"probability must lie in [0, 1], got values from {probability.min()} to "
      f"{probability.max()}; pass the softmax of the logits"
    )
  return probability, target


def _counts_above_thresholds(
  probability: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Counts target pixels and all pixels with `probability > THRESHOLDS[i]`, each as [254]."""
  # One histogram of pairs (is target, thresholds exceeded), with the target in the high byte.
  # 16 bits take a third of the time of 64.
  pairs = np.left_shift(target, 8, dtype=np.uint16)
  pairs |= _thresholds_exceeded(probability)
  histogram = np.bincount(pairs.ravel(), minlength=512).reshape(2, 256)
  of_rest, of_target = histogram[:, : len(THRESHOLDS) + 1]
  # Pixels in bins i + 1 and above exceed threshold i.
  at_least = [np.cumsum(h[::-1])[::-1][1:] for h in (of_target, of_target + of_rest)]
  return at_least[0], at_least[1]


def _thresholds_exceeded(probability: np.ndarray) -> np.ndarray:
  """Counts, for each float32 probability in [0, 1], the THRESHOLDS strictly below it, as uint8."""
  # Let k be the integer part of 255 p. Then p exceeds thresholds 1 ... k - 1 and not k + 1, because
  # rounding moves p * 255 and the thresholds by less than their spacing. Only threshold k remains.
  level = (probability * np.float32(255)).astype(np.uint8)
  level -= probability <= _THRESHOLD_OF_LEVEL.take(level)
  return level


def _f_beta(hits: Numbers, predicted: Numbers, positives: Numbers) -> np.ndarray:
  """Returns (1 + b) P R / (b P + R), b = beta^2, of broadcastable pixel counts.

  The precision P of an empty prediction is 1, and the recall R of an empty target is 1. An F of
  0 / 0 is 0.
  """
  precision = _ratio(hits, predicted, when_empty=1.0)
  recall = _ratio(hits, positives, when_empty=1.0)
  return _ratio(
    (1 + BETA_SQUARED) * precision * recall, BETA_SQUARED * precision + recall, when_empty=0.0
  )


def _ratio(numerator: Numbers, denominator: Numbers, when_empty: float) -> np.ndarray:
  divisor = np.asarray(denominator, np.float64)
  safe = np.where(divisor == 0, 1.0, divisor)
  return np.where(divisor == 0, when_empty, numerator / safe)
