"""The current metrics of the salient object literature, computed by `pysodmetrics`.

`saliency_scores` scores one image, and `aggregate` scores a data set; all averages are over images.
The library follows the authors' published MATLAB code, which has these conventions:

- A prediction is an 8-bit grey image. Probabilities are rounded to the nearest k / 255.
- Each prediction is stretched to [0, 1] by its minimum and maximum. A constant prediction does not
  change.
- `e_measure` is the mean over the 256 thresholds, which most papers report as the mean E-measure
  (neither the maximum over thresholds nor the value at the adaptive threshold). It divides by the
  number of pixels minus one, so a perfect score exceeds 1 by that ratio.
- The weighted F of an empty target is always 0.
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
    probability: the foreground probability, `[H, W]` in [0, 1]; rounded to 8 bits.
    target: `[H, W]` bool, True in the foreground.

  Returns:
    `mae`: mean absolute error; 0 is best (Perazzi et al., CVPR 2012);
    `s_measure`: structural similarity of regions and object, equally weighted (Fan et al., ICCV
    2017);
    `e_measure`: mean enhanced alignment (Fan et al., IJCAI 2018);
    `weighted_f`: F with beta = 1, with precision and recall weighted by distance and neighbourhood
    (Margolin et al., CVPR 2014). The best value of the last three is 1.

  Raises:
    ImportError: `pysodmetrics` is not installed.
    ValueError: the shapes differ, are not [H, W] or hold fewer than two pixels; `target` is not
      bool; or a probability is NaN or outside [0, 1].
  """
  library = _library()
  probability, target = metrics.checked(probability, target)
  if target.size < 2:
    raise ValueError(
      f"probability and target have shape {target.shape}, but the E-measure needs at least two "
      "pixels; omit the picture"
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
  """Averages the scores of a data set's images, bitwise independent of their order.

  Args:
    scores: the results of `saliency_scores`, one entry per image.

  Returns:
    The mean of each score.

  Raises:
    ValueError: `scores` is empty.
  """
  if not scores:
    raise ValueError("aggregate needs the scores of at least one image, got none")
  return {name: metrics.exact_mean([s[name] for s in scores]) for name in NAMES}


def check_installed() -> None:
  """Raises an ImportError with installation instructions if these metrics are unavailable."""
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
  """Returns the library's S-measure, fixed for targets in the last row or column."""

  base: Any = _library().Smeasure

  class StructureMeasure(base):
    def ssim(self, pred: np.ndarray, gt: np.ndarray) -> float:
      # Such a target leaves one of the four regions empty: its similarity is 0 / 0, its weight 0.
      return super().ssim(pred, gt) if pred.size else 0.0

  return StructureMeasure
