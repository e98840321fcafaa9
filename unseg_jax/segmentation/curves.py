"""The curves of a training: losses and scores by step, as `history.json` keeps them."""

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
  """Pairs made on the fly run out because the filters reject almost everything."""


@dataclasses.dataclass
class Curves:
  """The training's history, and the losses since its last point, to be logged as their mean.

  Attributes:
    columns: `{curve: {"step": [...], name: [...]}}`, as `history.json` holds it.
    losses: those since the last point that were fetched.
    on_devices: those after them, as the steps returned them, each with the gradient's norm, and
      the number of pairs of its batch, which is None for a batch from disk.
    last: the last step whose loss was fetched, and the norm of its gradient.
  """

  columns: dict[str, dict[str, list[float]]] = dataclasses.field(default_factory=dict)
  losses: list[float] = dataclasses.field(default_factory=list)
  on_devices: list[tuple[AnyArray, AnyArray, AnyArray | None]] = dataclasses.field(
    default_factory=list
  )
  last: tuple[int, float] = (0, 0.0)

  @classmethod
  def read(cls, folder: Path, step: int) -> "Curves":
    """Reads what was logged up to the step that training continues from."""
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
    """Writes the history, and the losses that were fetched since its last point, if any."""
    if parallel.is_primary():
      whole_files.write_json(folder / "history.json", self.columns)
      if self.losses:
        whole_files.write_json(folder / "pending.json", {"step": step, "losses": self.losses})

  def append(self, curve: str, point: Mapping[str, float]) -> None:
    """Adds a point to a curve, in the columns with which it began.

    A run that an earlier version began has no columns for newer scores.
    """
    for name, values in self.columns.setdefault(curve, {name: [] for name in point}).items():
      values.append(point[name])

  def fetch(
    self, step: int, config: ml_collections.ConfigDict, manager: ocp.CheckpointManager
  ) -> None:
    """Fetches the losses from the devices; stops the run at one that is not finite."""
    fetched = parallel.unreplicate(self.on_devices)
    for at, (loss, norm, pairs) in enumerate(fetched, step - len(self.on_devices)):
      if pairs is not None and pairs < config.batch_size:
        raise TooFewPairs(
          f"the filters reject almost everything: step {at} made {pairs} of the "
          f"{config.batch_size} pairs of its batch; {_last(manager)}. See "
          "config.generate.minimum_acceptance, and run the stage generate alone for the shares "
          "that each filter accepts."
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
    """Adds the mean of the fetched losses as a point, and returns it."""
    mean = float(np.mean(self.losses))
    self.append("Training", {"step": step, "loss": mean})
    self.losses = []
    return mean


def _last(manager: ocp.CheckpointManager) -> str:
  step = manager.latest_step()
  if step is None:
    return "there is no checkpoint yet"
  return f"the last good checkpoint is of step {step}, in {manager.directory / str(step)}"
