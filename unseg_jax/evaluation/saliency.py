"""The metrics that papers on salient objects report today, computed by `pysodmetrics`.

One image is scored by `saliency_scores`, a data set by `aggregate`; every average is over images.
The library follows the authors' published MATLAB code, and so do these conventions:

- A prediction is a grey picture of 8 bits. Probabilities are rounded to the nearest of k / 255.
- Each prediction is stretched to [0, 1] by its own least and greatest value; a constant one stays
  as it is.
- `e_measure` is the mean over the 256 thresholds, which most papers report as the mean E-measure
  (neither the maximum over thresholds, nor that at the adaptive threshold). It divides by one pixel
  less than the image has, so that a perfect one exceeds 1 by that much.
- The weighted F of an empty target is 0, whatever the prediction.
"""

import functools
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unseg_jax.errors import MissingPackage
from unseg_jax.evaluation import metrics

NAMES = ("mae", "s_measure", "e_measure", "weighted_f")


def saliency_scores(probability: np.ndarray, target: np.ndarray) -> dict[str, float]:
  """Scores the prediction for one image.

  Args:
    probability: the foreground's, `[H, W]` in [0, 1]; rounded to 8 bits.
    target: `[H, W]` bool, True in the foreground.

  Returns:
    `mae`: mean absolute error, 0 is best (Perazzi et al., CVPR 2012);
    `s_measure`: structural similarity of regions and object in equal parts (Fan et al., ICCV 2017);
    `e_measure`: mean enhanced alignment (Fan et al., IJCAI 2018);
    `weighted_f`: F with beta = 1 of precision and recall weighted by distance and neighbourhood
    (Margolin et al., CVPR 2014). The last three are best at 1.

  Raises:
    ImportError: if `pysodmetrics` is not installed.
    ValueError: if the shapes differ, are not [H, W] or hold fewer than two pixels, if `target` is
      not bool, or if a probability is not in [0, 1] (or is not a number).
  """
  library = _library()
  probability, target = metrics.checked(probability, target)
  if target.size < 2:
    raise ValueError(
      f"probability and target have shape {target.shape}, but the E-measure needs at least two "
      "pixels; leave the picture out"
    )
  prediction = np.rint(probability * np.float32(255)).astype(np.uint8)
  mask = np.where(target, np.uint8(255), np.uint8(0))

  def result(measure: Any) -> dict[str, Any]:
    measure.step(prediction, mask)
    return measure.get_results()

  return {
    "mae": float(result(library.MAE())["mae"]),
    "s_measure": float(result(_structure_measure()())["sm"]),
    "e_measure": float(np.mean(result(library.Emeasure())["em"]["curve"])),
    "weighted_f": float(result(library.WeightedFmeasure())["wfm"]),
  }


def aggregate(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """Averages the scores of a data set's images, the same to the last bit in whatever order.

  Args:
    scores: what `saliency_scores` returned, one entry per image.

  Returns:
    The mean of each score.

  Raises:
    ValueError: if there is no image.
  """
  if not scores:
    raise ValueError("aggregate needs the scores of at least one image, got none")
  return {name: metrics.exact_mean([s[name] for s in scores]) for name in NAMES}


def check_installed() -> None:
  """Raises an ImportError, with the way out, if these metrics cannot be computed here."""
  _library()


@functools.cache
def _library() -> types.ModuleType:
  try:
    import py_sod_metrics
  except ImportError as error:
    raise MissingPackage(
      f"the metrics {', '.join(NAMES)} need pysodmetrics, which cannot be imported ({error}); "
      'install it with: pip install "unseg-jax[benchmarks]"'
    ) from error
  return py_sod_metrics


@functools.cache
def _structure_measure() -> type:
  """The library's S-measure, made to hold where the target lies in the last row or column."""

  base: Any = _library().Smeasure

  class StructureMeasure(base):
    def ssim(self, pred: np.ndarray, gt: np.ndarray) -> float:
      # One of the four regions is then empty and its similarity 0 / 0, although its weight is 0.
      return super().ssim(pred, gt) if pred.size else 0.0

  return StructureMeasure
