"""The third tab: the losses of a search, and its direction after several steps."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unseg_jax.demo.direction import Drawn, Search, explore
from unseg_jax.reporting import charts
from unseg_jax.storage import whole_files


@dataclasses.dataclass(frozen=True)
class Snapshot:
  """The directions after a number of steps, with generated images.

  Attributes:
    step: the number of steps.
    cosine: the cosine of the angle between `light` at this step and at the end, from -1 to 1.
    drawn: the latents along the directions at this step.
  """

  step: int
  cosine: float
  drawn: Drawn


def curves(directory: Path) -> charts.Curves:
  """Reads the losses of a run's search, by name."""
  return charts.stage_curves("Search", whole_files.read_json(directory / "search" / "history.json"))


def snapshots(search: Search, seed: int) -> Sequence[Snapshot]:
  """Generates the same latents along the direction after several steps.

  Args:
    search: from `direction.open_search`.
    seed: of the latents.

  Returns:
    The snapshots in the order of their steps; empty for a search that saved no snapshots.
  """
  path = search.workdir / "search" / "snapshots.npz"
  if not path.exists():
    return []
  with np.load(path, allow_pickle=False) as file:
    steps, passed = file["step"], file["directions"]
  return [
    Snapshot(
      int(step),
      _cosine(directions[0], search.directions[0]),
      explore(search, directions, seed, search.settings.shift),
    )
    for step, directions in zip(steps, passed, strict=True)
  ]


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
  return float(np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))
