"""The training curves, losses and scores by step, as stored in `history.json`."""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path

import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from unseg_jax.array_types import AnyArray
from unseg_jax.errors import NotFinite, UserError
from unseg_jax.runtime import parallel
from unseg_jax.storage import whole_files


class TooFewPairs(UserError):
  """On-the-fly pairs run out, because the filters reject almost everything."""


@dataclasses.dataclass
class Curves:
  """The training history, and the losses since its last point, which is logged as their mean.

  Attributes:
    columns: `{curve: {"step": [...], name: [...]}}`, as stored in `history.json`.
    losses: the fetched losses since the last point.
    on_devices: the losses not fetched yet, each with its gradient norm and the number of pairs in
      its batch (None for a batch from disk).
    last: the last step whose loss was fetched, and its gradient norm.
  """

  columns: dict[str, dict[str, list[float]]] = dataclasses.field(default_factory=dict)
  losses: list[float] = dataclasses.field(default_factory=list)
  on_devices: list[tuple[AnyArray, AnyArray, AnyArray | None]] = dataclasses.field(
    default_factory=list
  )
  last: tuple[int, float] = (0, 0.0)

  @classmethod
  def read(cls, folder: Path, step: int) -> "Curves":
    """Reads the history up to the step from which training continues."""
    path, pending = folder / "history.json", folder / "pending.json"
    curves = cls(last=(step, 0.0))
    if path.exists():
      for curve, columns in whole_files.read_json(path).items():
        kept = [at <= step for at in columns["step"]]
        curves.columns[curve] = {
          name: list(itertools.compress(values, kept)) for name, values in columns.items()
        }
    if pending.exists() and (saved := whole_files.read_json(pending))["step"] == step:
      curves.losses = saved["losses"]
    return curves

  def write(self, folder: Path, step: int) -> None:
    """Writes the history, and any losses that were fetched since its last point."""
    if parallel.is_primary():
      whole_files.write_json(folder / "history.json", self.columns)
      if self.losses:
        whole_files.write_json(folder / "pending.json", {"step": step, "losses": self.losses})

  def append(self, curve: str, point: Mapping[str, float]) -> None:
    """Adds a point to a curve, using the columns of the curve's first point.

    A run that an earlier version started has no columns for newer scores.
    """
    for name, values in self.columns.setdefault(curve, {name: [] for name in point}).items():
      values.append(point[name])

  def fetch(
    self, step: int, config: ml_collections.ConfigDict, manager: ocp.CheckpointManager
  ) -> None:
    """Fetches the losses from the devices; raises NotFinite if one is not finite."""
    fetched = parallel.unreplicate(self.on_devices)
    for at, (loss, norm, pairs) in enumerate(fetched, step - len(self.on_devices)):
      if pairs is not None and pairs < config.batch_size:
        raise TooFewPairs(
          f"the filters reject almost everything: step {at} made {pairs} of the "
          f"{config.batch_size} pairs of its batch; {_last(manager)}. See "
          "config.generate.minimum_acceptance, and run the stage generate alone to see the "
          "acceptance rate of each filter."
        )
      if not np.isfinite(loss):
        raise NotFinite(
          f"the training loss is not finite at step {at}; {_last(manager)}. Lower "
          "config.train.learning_rate."
        )
      self.losses.append(float(loss))
      self.last = at + 1, float(norm)
    self.on_devices = []

  def log(self, step: int) -> float:
    """Adds the mean of the fetched losses as a point and returns it."""
    mean = float(np.mean(self.losses))
    self.append("Training", {"step": step, "loss": mean})
    self.losses = []
    return mean


def _last(manager: ocp.CheckpointManager) -> str:
  step = manager.latest_step()
  if step is None:
    return "no checkpoint exists yet"
  return f"the last good checkpoint is of step {step}, in {manager.directory / str(step)}"
