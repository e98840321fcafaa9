"""The curves of a training: losses and scores by step, as `history.json` keeps them."""

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from unseg_jax.runtime import parallel
from unseg_jax.storage import whole_files


class TooFewPairs(Exception):
  """Pairs made on the fly run out, for the filters reject almost everything."""


@dataclasses.dataclass
class Curves:
  """The training's history, and the losses that wait to be logged as their mean.

  Attributes:
    columns: `{curve: {"step": [...], name: [...]}}`, as `history.json` holds it.
    waiting: losses since the last point; while they are on the devices, each beside the number of
      pairs of its batch, which is None for a batch from disk.
  """

  columns: dict[str, dict[str, list]]
  waiting: list[Any]

  @classmethod
  def read(cls, folder: Path, step: int) -> "Curves":
    """Reads what was logged up to the step that training continues from."""
    path, pending = folder / "history.json", folder / "pending.json"
    curves = cls({}, [])
    if path.exists():
      for curve, columns in whole_files.read_json(path).items():
        kept = [at <= step for at in columns["step"]]
        curves.columns[curve] = {
          name: list(itertools.compress(values, kept)) for name, values in columns.items()
        }
    if pending.exists() and (left := whole_files.read_json(pending))["step"] == step:
      curves.waiting = left["losses"]
    return curves

  def write(self, folder: Path, step: int) -> None:
    """Writes the history, and what waits at this step if anything does."""
    if parallel.is_primary():
      whole_files.write_json(folder / "history.json", self.columns)
      if self.waiting:
        whole_files.write_json(folder / "pending.json", {"step": step, "losses": self.waiting})

  def append(self, curve: str, point: Mapping[str, float]) -> None:
    """Adds a point to a curve, in the columns with which it began.

    A run that an earlier version began has no columns for the scores that are newer.
    """
    for name, values in self.columns.setdefault(curve, {name: [] for name in point}).items():
      values.append(point[name])

  def fetch(
    self, step: int, config: ml_collections.ConfigDict, manager: ocp.CheckpointManager
  ) -> None:
    """Gets the waiting losses from the device; stops the run at one that is not finite."""
    for i, made in enumerate(self.waiting):
      if isinstance(made, float):
        continue
      loss, pairs = jax.device_get(parallel.unreplicate(made))
      at = step - len(self.waiting) + i
      if pairs is not None and pairs < config.batch_size:
        raise TooFewPairs(
          f"the filters reject almost everything: step {at} made {pairs} of the "
          f"{config.batch_size} pairs of its batch; {_last(manager)}. See "
          "config.generate.minimum_acceptance, and run the stage generate alone for the shares "
          "that each filter accepts."
        )
      if not np.isfinite(loss):
        raise FloatingPointError(
          f"the training loss is not finite at step {at}; {_last(manager)}. Lower "
          "config.train.learning_rate."
        )
      self.waiting[i] = float(loss)

  def log(self, step: int) -> float:
    """Adds the mean of the waiting losses as a point, and returns it."""
    mean = float(np.mean(self.waiting))
    self.append("Training", {"step": step, "loss": mean})
    self.waiting = []
    return mean


def _last(manager: ocp.CheckpointManager) -> str:
  step = manager.latest_step()
  if step is None:
    return "there is no checkpoint yet"
  return f"the last good checkpoint is of step {step}, in {manager.directory / str(step)}"
