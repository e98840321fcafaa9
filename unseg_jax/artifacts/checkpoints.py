"""Checkpoints of a training, written by orbax."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from unseg_jax.runtime import parallel
from unseg_jax.storage import places

NOT_SCORED = -1.0


def training_manager(folder: pathlib.Path, read_only: bool = False) -> ocp.CheckpointManager:
  """Opens a run's checkpoints; orbax keeps the latest and the one with the best validation IoU.

  To write, all processes of a run open them together; to read, each opens them alone. For a remote
  workdir, process 0 alone writes and uploads checkpoints.
  """
  folder = pathlib.Path(folder).absolute()  # orbax requires it.
  if alone := places.is_copied(folder):
    read_only |= not parallel.is_primary()
    folder.mkdir(parents=True, exist_ok=True)
  policies = ocp.checkpoint_managers.preservation_policy
  every_process = ocp.options.MultiprocessingOptions()
  options = ocp.CheckpointManagerOptions(
    preservation_policy=policies.AnyPreservationPolicy(
      [
        policies.LatestN(1),
        policies.BestN(get_metric_fn=_score, n=1),
      ]
    ),
    best_fn=_score,
    best_mode="max",
    read_only=read_only,
    # With their defaults, orbax warns about these two when it only reads.
    save_interval_steps=0 if read_only else 1,
    create=not (alone or read_only),  # orbax does not create folders for a single process.
    multiprocessing_options=_this_process_alone() if read_only or alone else every_process,
  )
  return ocp.CheckpointManager(folder, options=options, handler_registry=_handlers())


def _handlers() -> ocp.DefaultCheckpointHandlerRegistry:
  """Registers how states are saved and restored, which orbax needs before the first of either."""
  registry, handler = ocp.DefaultCheckpointHandlerRegistry(), ocp.PyTreeCheckpointHandler()
  for arguments in (ocp.args.PyTreeSave, ocp.args.PyTreeRestore):
    registry.add("state", arguments, handler)
  return registry


def _this_process_alone() -> ocp.options.MultiprocessingOptions:
  index = parallel.process_index()
  return ocp.options.MultiprocessingOptions(
    primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"process_{index}"
  )


def save_state(
  manager: ocp.CheckpointManager,
  step: int,
  state: Any,
  scores: Mapping[str, float] | None = None,
) -> None:
  """Saves a training state of NumPy arrays.

  Args:
    manager: the run's checkpoints.
    step: the number of completed steps.
    state: a pytree.
    scores: scores on the validation split. A checkpoint without scores serves to resume training
      and is never the best.
  """
  folder = pathlib.Path(manager.directory)
  alone = places.is_copied(folder)
  if alone and not parallel.is_primary():
    return
  arguments = ocp.args.Composite(state=ocp.args.PyTreeSave(state))
  manager.save(step, args=arguments, metrics=dict(scores or {"iou": NOT_SCORED}))
  if alone:
    manager.wait_until_finished()
    places.publish_folder(folder / str(step), whole=True)
    for removed in places.folders(folder) - set(map(str, manager.all_steps())):
      places.remove(folder / removed)


def _score(metrics: Mapping[str, float]) -> float:
  return metrics["iou"]


def restore_state(manager: ocp.CheckpointManager, step: int, like: Any) -> Any:
  """Restores a checkpoint with the structure of `like`, independent of the devices that saved it.

  Returns:
    NumPy arrays on the host. `parallel.replicate` or a `Segmenter` copies them to the devices.
  """
  restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), like)
  arguments = ocp.args.PyTreeRestore(item=like, restore_args=restore_args)
  return manager.restore(step, args=ocp.args.Composite(state=arguments))["state"]


def restore_best(folder: pathlib.Path) -> dict[str, Any]:
  """Returns `params` and `batch_stats` of the best checkpoint, on the host.

  Raises:
    FileNotFoundError: no checkpoint exists.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise FileNotFoundError(f"{folder} holds no checkpoint; run the stage train first")
  with training_manager(folder, read_only=True) as manager:
    step = manager.best_step()
    if step is None or manager.metrics(step)["iou"] == NOT_SCORED:
      raise FileNotFoundError(f"{folder} holds no checkpoint; run the stage train first")
    state = restore_state(manager, step, manager.item_metadata(step)["state"].tree)
  return {name: state[name] for name in ("params", "batch_stats")}
