"""Dry run (`--plan`): lists what a run would do and what is missing, and writes nothing."""

import dataclasses
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import jax
import ml_collections

from unseg_jax import default_config, experiment, rehearsal
from unseg_jax.artifacts import stage_records
from unseg_jax.experiment import Run
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.runtime import parallel
from unseg_jax.stages import (
  DERIVED,
  STAGES,
  WHY_LEFT_OUT,
  check_records,
  is_done,
  recorded_types,
  select,
  stages_of,
)
from unseg_jax.storage import places
from unseg_jax.synthesis import generate, records

TITLE = (
  "Memory on each device for the arguments of programs; --plan=compiled adds their temporary "
  "buffers:"
)
COMPILED_TITLE = "Memory on each device, from the compiled programs:"
LEAST_SHOWN = 10_000  # Bytes.
# Errors that the user can fix; the plan lists all of them.
_MENDABLE = (ValueError, OSError, ImportError, stage_records.StageMismatch)


@dataclasses.dataclass(frozen=True)
class Plan:
  """The plan of a run.

  Attributes:
    lines: a description.
    problems: the reasons why the run would be refused, one message each, with commands that help.
  """

  lines: list[str]
  problems: list[str]

  def __str__(self) -> str:
    if not self.problems:
      return "\n".join([*self.lines, "Nothing is missing, and nothing was written."])
    return "\n".join([*self.lines, "The run would be refused:", *map(_item, self.problems)])


def make(
  config: ml_collections.ConfigDict,
  directory: Path | str,
  stages: Collection[str],
  compiled: bool = False,
) -> Plan:
  """Plans what `pipeline.run` would do; writes nothing.

  Args:
    config: as for `pipeline.run`.
    directory: the workdir.
    stages: as for `pipeline.run`.
    compiled: whether to compile the programs for their total memory, which takes minutes.

  Raises:
    ValueError: a stage is unknown, or the config leaves it out.
  """
  stages = select(stages, config)
  directory = places.local(directory)
  config = default_config.with_types(config, recorded_types(directory))
  head = [f"Plan of {config.name} in {places.in_urls(str(directory))}", f"Devices: {_devices()}"]
  if config.segmenter:
    return _of_evaluation(config, head)
  to_run = [stage for stage in STAGES if stage in stages]
  wrong, missing = experiment.wrong_settings(config), experiment.missing(config)
  if wrong or missing:
    this = Run(config, directory, None, (), None)
  else:
    this = experiment.open_run(config, directory)
    try:
      to_run = check_records(this, stages)
    except _MENDABLE as error:
      missing.append(str(error))
  wrong += _refused_by_devices(this, to_run)
  if not (wrong or missing):
    try:
      rehearsal.rehearse(this, to_run)
    except _MENDABLE as error:
      wrong.append(str(error))
  lines = [line for stage in STAGES for line in _stage_lines(this, stage, stages)]
  memory = [] if wrong else _memory_lines(this, to_run, compiled)
  return Plan([*head, *lines, *memory], wrong + missing)


def _refused_by_devices(this: Run, stages: Collection[str]) -> list[str]:
  problems = []
  for stage in stages:
    try:
      rehearsal.check_devices(this, stage)
    except _MENDABLE as error:
      problems.append(str(error))
  return list(dict.fromkeys(problems))


def _of_evaluation(config: ml_collections.ConfigDict, head: list[str]) -> Plan:
  problems = experiment.evaluation_problems(config)
  try:
    Segmenter.restore(config.segmenter)
  except _MENDABLE as error:
    problems.append(str(error))
  names = _evaluated(config)
  problems += [] if names else [experiment.NOTHING_TO_EVALUATE]
  return Plan([*head, f"  evaluate: open; {config.segmenter} on {', '.join(names)}"], problems)


def _devices() -> str:
  kind = jax.devices()[0].device_kind
  return (
    f"{parallel.device_count()} x {kind}, of {parallel.process_count()} "
    f"process{'es' if parallel.process_count() > 1 else ''}"
  )


def _stage_lines(this: Run, stage: str, stages: Collection[str]) -> Iterator[str]:
  if stage not in stages_of(this.config):
    yield f"  {stage}: left out, because {WHY_LEFT_OUT[stage]}"
    return
  state = _state(this, stage)
  if state != "complete" and stage not in stages:
    state += ", not requested"
  yield f"  {stage}: {state}; {_work(this, stage)}"


def _state(this: Run, stage: str) -> str:
  folder = this.workdir / stage
  is_complete = (
    is_done(this, stage) if stage in DERIVED else stage_records.has_complete_stage(folder)
  )
  if is_complete:
    return "complete"
  begun = stage not in DERIVED and stage_records.recorded_settings(folder)
  return "under way" if begun else "open"


def _work(this: Run, stage: str) -> str:
  """Summarises a stage's work in numbers."""
  config = this.config
  if stage == "search":
    settings = config.search
    return (
      f"{settings.steps:,} steps of {settings.batch_size} pictures, directions: "
      f"{settings.directions}, restarts: {settings.restarts}"
    )
  if stage == "generate":
    return _pairs(this)
  if stage == "train":
    settings = config.train
    return (
      f"{settings.steps:,} steps of {settings.batch_size} pairs of {_square(settings.image_size)}"
    )
  if stage == "adapt":
    count = f"{this.pictures.count:,} pictures" if this.pictures else config.adapt.images
    return f"{config.adapt.rounds} rounds of {config.adapt.steps:,} steps, {count}"
  if stage == "evaluate":
    return ", ".join(["held-out pairs", *_evaluated(config)])
  return "report.html"


def _pairs(this: Run) -> str:
  sizes = this.config.generate.num_images.to_dict()
  made = ", ".join(f"{name} {sizes[name]:,}" for name in generate.SPLITS if sizes[name])
  if generate.on_the_fly(this.config.generate):
    made += ", train on the fly"
  if this.generator is None:
    return f"pairs: {made}"
  side = this.generator.image_size
  disk = sum(sizes.values()) * records.typical_bytes(side)
  free = shutil.disk_usage(_existing(this.workdir)).free
  return f"pairs: {made}, of {_square(side)}; about {_bytes(disk)} of disk, {_bytes(free)} are free"


def _existing(folder: Path) -> Path:
  """Returns the folder, or its nearest parent that exists."""
  return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _evaluated(config: ml_collections.ConfigDict) -> list[str]:
  settings = config.evaluate
  return [*settings.benchmarks, *(row[0] for row in (*settings.folders, *settings.tfds))]


def _memory_lines(this: Run, stages: Collection[str], compiled: bool) -> list[str]:
  """Describes the memory that the programs of stages need on a device."""
  by_signature: dict[tuple[str, str], tuple[list[str], rehearsal.Program]] = {}
  for stage in stages:
    for program in rehearsal.programs(this, stage):
      by_signature.setdefault(program.signature, ([], program))[0].append(stage)
  if not by_signature:
    return []
  title = COMPILED_TITLE if compiled else TITLE
  return [title, *(_memory_line(*row, compiled) for row in by_signature.values())]


def _memory_line(stages: list[str], program: rehearsal.Program, compiled: bool) -> str:
  sizes = program.memory()
  total = program.compiled_memory() if compiled else sum(sizes.values())
  parts = [f"{name} {_bytes(size)}" for name, size in sizes.items() if size >= LEAST_SHOWN]
  return f"  {', '.join(stages)}: {program.name} {_bytes(total)}, of which " + ", ".join(parts)


def _square(side: int) -> str:
  return f"{side} x {side} pixels"


def _bytes(count: float) -> str:
  unit, name = next(pair for pair in ((1e9, "GB"), (1e6, "MB"), (0, "kB")) if count >= pair[0])
  return f"{count / (unit or 1e3):.1f} {name}"


def _item(problem: str) -> str:
  return "- " + problem.replace("\n", "\n  ")
