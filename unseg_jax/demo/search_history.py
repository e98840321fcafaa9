"""The third tab: the losses of a search, and its direction on the way."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unseg_jax.demo.direction import Drawn, Search, explore
from unseg_jax.reporting import charts
from unseg_jax.storage import whole_files


@dataclasses.dataclass(frozen=True)
class Snapshot:
  """The directions after some steps, drawn.

  Attributes:
    step: how many steps.
    cosine: of the angle between `light` and what it became, from -1 to 1.
    drawn: the latents along it.
  """

  step: int
  cosine: float
  drawn: Drawn


def curves(directory: Path) -> charts.Curves:
  """Reads the losses of a run's search, by their names."""
  return charts.stage_curves("Search", whole_files.read_json(directory / "search" / "history.json"))


def snapshots(search: Search, seed: int) -> Sequence[Snapshot]:
  """Draws the same latents along the direction as it was after some of the steps.

  Args:
    search: of `direction.open_search`.
    seed: of the latents.

  Returns:
    In the order of the steps; none of a search of an older version, which kept none.
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
