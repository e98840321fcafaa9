"""Runs the stages in order, skipping those whose results are complete.

config -> generator -> direction -> (image, mask) records -> segmenter -> metrics, report.
"""

import logging
from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path

import ml_collections

from unseg_jax import default_config, experiment, rehearsal
from unseg_jax.artifacts import stage_records
from unseg_jax.errors import InvalidValue
from unseg_jax.experiment import Run
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.runtime import parallel, preemption
from unseg_jax.runtime.barrier import barrier
from unseg_jax.stages import (
  DERIVED,
  STAGES,
  check_records,
  recorded_types,
  score,
  select,
  settings_of,
  write_scores,
)
from unseg_jax.storage import locks, places, whole_files
from unseg_jax.synthesis import shards

log = logging.getLogger(__name__)


def run(
  config: ml_collections.ConfigDict,
  directory: Path | str,
  stages: Collection[str],
  repair: bool = False,
  worker_count: int = 0,
) -> None:
  """Runs the stages of an experiment.

  The errors below, except `Preempted`, are raised before any work is done.

  Args:
    config: the resolved config (`default_config.py` describes it).
    directory: the workdir, a folder or a URL. It is created if missing, and continued if it exists.
    stages: names of `STAGES`, which run in the order of `STAGES`. All of them together mean those
      that the config does not leave out.
    repair: whether to first find the damaged shards of the data set and make them again.
    worker_count: processes that encode and decode pairs; 0: threads of this process. The number
      does not affect results.

  Raises:
    preemption.Preempted: a signal stopped the run; finished work is saved.
    stage_records.StageMismatch: the workdir contains results of different settings, of these stages
      or of stages that they need.
    locks.Held: another run has locked the workdir.
    ValueError, FileNotFoundError: the config is wrong or does not fit the devices, or a required
      stage is not complete.
  """
  default_config.check_tuples(config)
  stages = select(stages, config)
  only_here = locks.held(directory, "--workdir") if parallel.is_primary() else nullcontext()
  with only_here:
    barrier("the workdir is held")
    _run(config, places.local(directory), stages, repair, worker_count)


def _run(
  config: ml_collections.ConfigDict,
  directory: Path,
  stages: Collection[str],
  repair: bool,
  worker_count: int,
) -> None:
  config = default_config.with_types(config, recorded_types(directory))
  if config.segmenter:
    return evaluate_segmenter(config, directory)
  this = experiment.open_run(config, directory, worker_count)
  # Errors are raised before any work, and before any process changes a file.
  rehearsal.rehearse(this, check_records(this, stages))
  barrier("inputs are checked")
  if parallel.is_primary():
    if repair:
      for stage in ("generate", "adapt"):
        _remove_damaged_shards(directory / stage)
    for stage in DERIVED:
      stage_records.restart_stage_if_changed(directory / stage, settings_of(this, stage))
    whole_files.write_json(directory / "config.json", config.to_dict())
  barrier("the workdir is ready")
  for stage in STAGES:
    if stage in stages:
      _run_stage(this, stage)


def _remove_damaged_shards(folder: Path) -> None:
  """Removes shards whose contents have changed since they were written; the stage redoes them."""
  data_sets = [path.parent for path in sorted(folder.rglob("counts"))]
  damaged = [path for data_set in data_sets for path in shards.damaged_shards(data_set)]
  for path in damaged:
    log.info("damaged shard, will be made again: %s", path)
    path.unlink(missing_ok=True)
    places.remove(path)
  if damaged and (folder / stage_records.RECORD).exists():
    stage_records.reopen_stage(folder)
  log.info("%d damaged shards in %s", len(damaged), folder)


def evaluate_segmenter(config: ml_collections.ConfigDict, directory: Path) -> None:
  """Evaluates `config.segmenter` on the real data sets that the config lists, without training.

  Args:
    config: the resolved config.
    directory: the folder for `metrics.json`, `metrics.md` and `metrics.txt`.

  Raises:
    ValueError, FileNotFoundError: the segmenter or a data set is missing, or no data set is
      listed.
  """
  data_sets = experiment.check_evaluation(config)
  if not data_sets:
    raise InvalidValue(experiment.NOTHING_TO_EVALUATE)
  segmenter = Segmenter.restore(config.segmenter)
  write_scores(*score(config, {"": segmenter}, data_sets), config, directory)


def _run_stage(this: Run, stage: str) -> None:
  folder, settings = this.workdir / stage, settings_of(this, stage)
  if stage_records.is_complete(folder, settings):
    log.info("stage %s: complete, skipped (%s)", stage, places.in_urls(str(folder)))
    return
  if preemption.anyone_leaving():
    preemption.leave(f"the stages before {stage} are complete")
  log.info("stage %s: %s", stage, places.in_urls(str(folder)))
  barrier(f"{stage} begins")
  if parallel.is_primary():
    stage_records.begin_stage(folder, settings)
  barrier(f"{stage} is begun")
  # The report is quick: one process writes it while the others wait.
  if parallel.is_primary() or stage != "report":
    STAGES[stage](this, folder)
  barrier(f"{stage} ends")
  if parallel.is_primary():
    stage_records.finish_stage(folder)
  barrier(f"{stage} is complete")
