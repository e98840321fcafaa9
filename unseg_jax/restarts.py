"""Which of several searches to keep, without labels."""

import dataclasses

import jax
import ml_collections
import numpy as np

from unseg_jax import candidates, masks, parallel
from unseg_jax.generators import Generator, with_dtype
from unseg_jax.search import Found

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
  generator: Generator, config: ml_collections.ConfigDict, found: Found, key: jax.Array
) -> list[Scores]:
  """Judges every restart of a search on the same latents.

  Args:
    generator: the pretrained generator.
    config: `config.generate` of an experiment.
    found: what the search found.
    key: the latents' key, of a stream that the search has not seen.
  """
  totals = sum(values[-LAST_STEPS:].mean(axis=0).sum(axis=-1) for values in found.losses.values())
  generator = with_dtype(generator, config.dtype)
  compute = parallel.pmap_local(candidates.make_candidates(generator, config))
  inputs = parallel.replicate((generator.variables, key))
  made = [_masks(compute, inputs, config, directions) for directions in found.directions]
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


def _masks(compute, inputs, config, directions) -> tuple[np.ndarray, np.ndarray]:
  """The first candidates' masks `[N, H, W]` and whether they were accepted, `[N]`."""
  variables, keys = inputs
  directions = parallel.replicate(directions)
  per_call = config.chunk * parallel.local_device_count()
  count = -(-CANDIDATES // per_call) * per_call
  found = [
    parallel.unshard(
      compute(variables, directions, keys, parallel.shard(np.arange(start, start + per_call)))
    )
    for start in range(0, count, per_call)
  ]
  kept = -(-CANDIDATES // config.chunk) * config.chunk  # On any number of devices.
  mask = np.concatenate([chunk["mask"] for chunk in found])[:kept]
  return mask, np.concatenate([chunk["verdicts"]["all"] for chunk in found])[:kept]


def _agreement(every: np.ndarray, number: int) -> float:
  if len(every) == 1:
    return 1.0
  others = np.delete(every, number, axis=0)
  return float(np.mean([masks.agreement(every[number], other).mean() for other in others]))
