"""Chooses the best of several searches without labels."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from unseg_jax.array_types import Bool, Float
from unseg_jax.direction.search import SearchResult

# Number of candidates that score a restart, rounded up to full chunks.
CANDIDATES = 256
# A restart's loss is the mean over this many final steps.
LAST_STEPS = 50


@dataclasses.dataclass(frozen=True)
class Scores:
  """Quality measures of one restart.

  Attributes:
    loss: mean of the summed weighted losses over the final steps; lower is better.
    acceptance: fraction of candidates that pass all filters; higher is better.
    agreement: fraction of pixels on which its masks equal those of another restart, averaged over
      all other restarts; higher is better.
  """

  loss: float
  acceptance: float
  agreement: float


# Maps the K directions of a restart to masks and to the filters' verdicts. Every call uses the same
# latents.
Judge = Callable[
  [Float[np.ndarray, " k *latent_shape"]],
  tuple[Bool[np.ndarray, "n h w"], Bool[np.ndarray, " n"]],
]


def scores(result: SearchResult, judge: Judge) -> list[Scores]:
  """Scores every restart of a search on the same latents.

  Args:
    result: the search result.
    judge: makes masks of latents that the search did not use.
  """
  parts = [values[-LAST_STEPS:].mean(axis=0).sum(axis=-1) for values in result.losses.values()]
  totals = sum(parts[1:], start=parts[0])
  judged = [judge(directions) for directions in result.directions]
  masks = np.stack([restart_masks for restart_masks, _ in judged])  # [R, N, H, W]
  return [
    Scores(float(loss), float(accepted.mean()), _agreement(masks, number))
    for number, (loss, (_, accepted)) in enumerate(zip(totals, judged, strict=True))
  ]


def best(scores: Sequence[Scores]) -> int:
  """Returns the number of the restart with the lowest loss.

  The choice rests on eight restarts of the face generator, which still differ after 12 steps. Loss
  and agreement each rank their masks almost as a reference does (rank correlation 0.86; acceptance
  0.83; docs/measurements.md). Agreement cannot rank two restarts, which score the same.
  """
  return int(np.argmin([restart.loss for restart in scores]))


def _agreement(masks: np.ndarray, number: int) -> float:
  if len(masks) == 1:
    return 1.0
  others = np.delete(masks, number, axis=0)
  return float(np.mean(masks[number] == others))
