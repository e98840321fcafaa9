"""Projects the time of the paper's full run from measurements."""

import dataclasses
from collections.abc import Mapping

import ml_collections

from common import experiments


@dataclasses.dataclass
class Measured:
  """Measurements of the stages: seconds and operations of one unit; None if not measured.

  Attributes:
    search: seconds of a search step.
    candidate: seconds of a candidate, on the devices only.
    pair: seconds of a kept pair, up to the disk, if all candidates are kept.
    disk_step: seconds of a training step from the disk.
    on_the_fly_step: seconds of a training step that makes its pairs, if all candidates are kept.
    written, read: the host's seconds to write or read a pair.
    candidate_flops, step_flops: floating-point operations of a candidate and of a training step.
  """

  search: float | None = None
  candidate: float | None = None
  pair: float | None = None
  disk_step: float | None = None
  on_the_fly_step: float | None = None
  written: float | None = None
  read: float | None = None
  candidate_flops: float | None = None
  step_flops: float | None = None


def project(
  measured: Measured, config: ml_collections.ConfigDict, acceptance: float
) -> dict[str, float | None]:
  """Returns the seconds of each part of the paper's run; None if its stage was not measured.

  Args:
    measured: the measurements.
    config: the measured experiment; its smaller batches are scaled up.
    acceptance: the share of candidates that the filters keep.
  """
  paper = experiments.load("bigbigan.py")
  pairs, steps = paper.generate.num_images.train, paper.train.steps
  larger = paper.train.batch_size / config.train.batch_size
  times = dict.fromkeys(("search", "generate", "train", "on the fly"))
  if measured.search:
    scale = paper.search.batch_size / config.search.batch_size
    times["search"] = paper.search.steps * scale * measured.search
  if measured.pair:
    slowest = max(measured.candidate / acceptance, measured.pair, measured.written or 0.0)
    times["generate"] = pairs * slowest
  if measured.disk_step:
    reading = config.train.batch_size * (measured.read or 0.0)
    times["train"] = steps * larger * max(measured.disk_step, reading)
  if measured.on_the_fly_step and measured.candidate:
    rejected = config.train.batch_size * (1 / acceptance - 1)
    step = measured.on_the_fly_step + rejected * measured.candidate
    times["on the fly"] = steps * larger * step
  for name, parts in (
    ("together, with a data set on disk", ("search", "generate", "train")),
    ("together, on the fly", ("search", "on the fly")),
  ):
    known = all(times[part] is not None for part in parts)
    times[name] = sum(times[part] for part in parts) if known else None
  return times


def print_table(
  measured: Mapping[str, Measured],
  config: ml_collections.ConfigDict,
  acceptance: float,
  where: str = "on this machine",
) -> None:
  """Prints the time of the paper's run, with a column for each type or number of chips.

  Args:
    measured: the measurements, by the column's heading.
    config: the measured experiment.
    acceptance: the share of candidates that the filters keep.
    where: the source of the times, for the title.
  """
  paper = experiments.load("bigbigan.py")
  pairs, steps = paper.generate.num_images.train, paper.train.steps
  samples = steps * paper.train.batch_size
  names = {
    "search": f"search: {paper.search.steps} steps of {paper.search.batch_size}",
    "generate": f"generate: {pairs:,} kept of {pairs / acceptance:,.0f} candidates",
    "train": f"train from the disk: {steps:,} steps of {paper.train.batch_size}",
    "on the fly": f"train on the fly: as many steps, {samples:,} kept pairs",
  }
  print(
    f"\nThe paper's run {where}, if the filters keep {acceptance:.0%} of the candidates "
    "(an assumption):"
  )
  columns = {name: project(found, config, acceptance) for name, found in measured.items()}
  print(f"| {'':54} | {' | '.join(f'{name:>10}' for name in columns)} |")
  print(f"| {'-' * 54} | {' | '.join('-' * 9 + ':' for _ in columns)} |")
  for part in next(iter(columns.values())):
    cells = [f"{_duration(times[part]):>10}" for times in columns.values()]
    print(f"| {names.get(part, part):54} | {' | '.join(cells)} |")


def _duration(seconds: float | None) -> str:
  """Formats seconds in a suitable unit; "-" for None."""
  if seconds is None:
    return "-"
  for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
    if seconds >= 2 * length:
      return f"{seconds / length:.1f} {unit}"
  return f"{seconds:.1f} s"
