"""Which of several searches to keep, without labels."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from unseg_jax.array_types import Bool, Float
from unseg_jax.direction.search import SearchResult

# Candidates that a restart is judged by, rounded up to whole chunks.
CANDIDATES = 256
# The losses of so many last steps count.
LAST_STEPS = 50


@dataclasses.dataclass(frozen=True)
class Scores:
  """How a restart did.

  Attributes:
    loss: mean of the summed weighted losses over the last steps; lower is better.
    acceptance: share of its candidates that pass all filters; higher is better.
    agreement: mean share of pixels on which its masks are those of another restart, over all
      others; higher is better.
  """

  loss: float
  acceptance: float
  agreement: float


# The K directions of a restart -> masks of the same latents at every call, and whether the filters
# accept them.
Judge = Callable[
  [Float[np.ndarray, " k *latent_shape"]],
  tuple[Bool[np.ndarray, "n h w"], Bool[np.ndarray, " n"]],
]


def scores(result: SearchResult, judge: Judge) -> list[Scores]:
  """Judges every restart of a search on the same latents.

  Args:
    result: of the search.
    judge: makes masks of latents that the search has not seen.
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
  """Returns the number of the restart to keep: that of the lowest loss.

  On the face generator, after 12 steps, where eight restarts still differ, loss and agreement rank
  their masks as a reference does (rank correlations 0.86 both, acceptance 0.83;
  docs/measurements.md). Of two restarts, however, each agrees with the other as well.
  """
  return int(np.argmin([restart.loss for restart in scores]))


def _agreement(masks: np.ndarray, number: int) -> float:
  if len(masks) == 1:
    return 1.0
  others = np.delete(masks, number, axis=0)
  return float(np.mean(masks[number] == others))
