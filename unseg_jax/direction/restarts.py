"""Which of several searches to keep, without labels."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from unseg_jax.direction.search import Found

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


def scores(
  found: Found, judge: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> list[Scores]:
  """Judges every restart of a search on the same latents.

  Args:
    found: what the search found.
    judge: directions `[K, *latent_shape]` -> what they make of latents that the search has
      not seen, the same at each call: masks `[N, H, W]` bool, and whether the filters accept them,
      `[N]` bool.
  """
  totals = sum(values[-LAST_STEPS:].mean(axis=0).sum(axis=-1) for values in found.losses.values())
  made = [judge(directions) for directions in found.directions]
  every = np.stack([mask for mask, _ in made])  # [R, N, H, W]
  return [
    Scores(float(loss), float(accepted.mean()), _agreement(every, number))
    for number, (loss, (_, accepted)) in enumerate(zip(totals, made, strict=True))
  ]


def best(found: list[Scores]) -> int:
  """The number of the restart to keep: that of the lowest loss.

  On the face generator, after 12 steps, where eight restarts still differ, loss and agreement rank
  their masks as a reference does (rank correlations 0.86 both, acceptance 0.83;
  docs/measurements.md). Of two restarts, however, each agrees with the other as well.
  """
  return int(np.argmin([restart.loss for restart in found]))


def _agreement(every: np.ndarray, number: int) -> float:
  if len(every) == 1:
    return 1.0
  others = np.delete(every, number, axis=0)
  return float(np.mean([jnp.mean(every[number] == other, axis=(1, 2)).mean() for other in others]))
