"""A run: checks a config and opens the generator, data sets and pictures that it names."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from unseg_jax import generators
from unseg_jax.adaptation import adapt
from unseg_jax.direction import search
from unseg_jax.errors import InvalidValue
from unseg_jax.evaluation import evaluate, saliency, unlabelled
from unseg_jax.inference import refinement, segmenter
from unseg_jax.reporting import contents
from unseg_jax.runtime import parallel
from unseg_jax.runtime.tracking import EventWriter
from unseg_jax.segmentation import data_sets, step
from unseg_jax.storage import places
from unseg_jax.synthesis import generate, shards
from unseg_jax.synthesis.records import Split

NOTHING_TO_EVALUATE = (
  "config.evaluate lists nothing to evaluate on; set config.evaluate.benchmarks, .folders or .tfds"
)

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
  """The inputs and outputs that the stages share.

  Attributes:
    config: the resolved config.
    workdir: the folder for results.
    generator: the generator; None if the config trains on data sets of other runs.
    data_sets: data sets of other runs; empty if this run makes its own.
    pictures: pictures to adapt to; None without adaptation.
    workers: processes that encode and decode pairs; 0: threads of this process.
  """

  config: ml_collections.ConfigDict
  workdir: Path
  generator: generators.Generator | None
  data_sets: Sequence[data_sets.DataSet]
  pictures: unlabelled.Pictures | None
  workers: int = 0

  def events(self, stage: str) -> EventWriter:
    """Returns a stage's writer of TensorBoard events, which writes on process 0 only."""
    return EventWriter(self.workdir / "events" / stage if parallel.is_primary() else None, stage)

  def sources(self, split: str) -> dict[str, Split]:
    """Opens a split of every training data set, by its name in the table of metrics."""
    if not self.data_sets:
      return {evaluate.SYNTHETIC: shards.read(self.workdir / "generate", split)}
    return {
      f"{evaluate.SYNTHETIC} {data_set.name}": shards.read(data_set.folder, split)
      for data_set in self.data_sets
    }

  def weights(self) -> list[float]:
    """The sampling weights of the training data sets, in order."""
    return [data_set.weight for data_set in self.data_sets] or [1.0]


def open_run(config: ml_collections.ConfigDict, directory: Path, worker_count: int = 0) -> Run:
  """Checks a config and opens the files that it names, so that errors appear at the start.

  Args:
    config: the resolved config.
    directory: the workdir.
    worker_count: processes that encode and decode pairs.

  Raises:
    ValueError, FileNotFoundError, ImportError: a setting is invalid, or a file, a folder or a
      package is missing.
  """
  others = _find_data_sets(config, config.train.data_sets)
  if not others:
    _check_generator(config)
  for check in _settings_checks(config):
    check()
  pictures = _open_pictures(config)
  check_evaluation(config)
  contents.find_pictures(config.report.pictures)
  generator = None if others else _resolve_generator(config)
  return Run(config, directory, generator, others, pictures, worker_count)


def wrong_settings(config: ml_collections.ConfigDict) -> list[str]:
  """Returns a message for each setting that `open_run` would refuse on any machine."""
  return _messages(_settings_checks(config))


def missing(config: ml_collections.ConfigDict) -> list[str]:
  """Returns a message for each file or package that `open_run` would miss on this machine.

  Args:
    config: the resolved config, with valid settings.
  """
  listed = config.train.data_sets
  # One by one, then together to find runs that are listed twice.
  found = _messages(functools.partial(_find_data_sets, config, (row,)) for row in listed)
  found += [] if found else _messages([lambda: _find_data_sets(config, listed)])
  if not listed:
    without = _messages([lambda: _check_generator(config)])
    found += without or _messages([lambda: _resolve_generator(config)])
  others = [lambda: _open_pictures(config), lambda: contents.find_pictures(config.report.pictures)]
  return [*found, *_messages(others), *evaluation_problems(config)]


def evaluation_problems(config: ml_collections.ConfigDict) -> list[str]:
  """Returns the errors of `check_evaluation`, one message for each data set."""

  def listing(**settings: Any) -> ml_collections.ConfigDict:
    one = config.copy_and_resolve_references()
    one.evaluate.update({"benchmarks": (), "folders": (), "tfds": ()} | settings)
    return one

  kinds = ("benchmarks", "folders", "tfds")
  each = [listing(**{kind: (row,)}) for kind in kinds for row in config.evaluate[kind]]
  checks = [functools.partial(check_evaluation, one) for one in each]
  # Together, to find names that are listed twice; without data sets, to check other settings.
  everything = functools.partial(check_evaluation, config if each else listing())
  return _messages(checks) or _messages([everything])


def _messages(checks: Iterable[Callable[[], object]]) -> list[str]:
  found = []
  for check in checks:
    try:
      check()
    except (ValueError, OSError, ImportError) as error:
      found.append(str(error))
  return found


def _settings_checks(config: ml_collections.ConfigDict) -> list[Callable[[], object]]:
  """Returns functions that check the parts of the settings."""
  checks: list[Callable[[], object]] = [
    lambda: step.check_config(config.train),
    lambda: segmenter.check_levels("config.train.features", config.train.features),
  ]
  if config.adapt.images:
    checks.append(lambda: _check_adaptation(config))
  if config.train.data_sets:
    return checks
  return [
    lambda: search.check_config(config.search),
    lambda: generate.check_config(config.generate, config.search.directions),
    *checks,
  ]


def _find_data_sets(
  config: ml_collections.ConfigDict, listed: Sequence[tuple[str, float]]
) -> list[data_sets.DataSet]:
  """Finds other runs; if one is missing, the error names the config's command that makes it."""
  try:
    return data_sets.find(listed)
  except FileNotFoundError as error:
    for command in config.convert_command.splitlines():
      for run, _ in listed:
        if f"--workdir={run}" in command.split() and str(error).startswith(str(run)):
          raise FileNotFoundError(f"{error}. Make it with\n  {command}") from error
    raise


def _check_adaptation(config: ml_collections.ConfigDict) -> None:
  adapt.check_config(config.adapt)
  if not config.train.data_sets and generate.on_the_fly(config.generate):
    raise InvalidValue(
      f"config.adapt.images={config.adapt.images}: the adaptation needs synthetic pairs on disk; "
      "set config.generate.num_images.train to their number"
    )


def _open_pictures(config: ml_collections.ConfigDict) -> unlabelled.Pictures | None:
  if not config.adapt.images:
    return None
  return unlabelled.open_pictures(config.adapt.images, config.data_root)


def _resolve_generator(config: ml_collections.ConfigDict) -> generators.Generator:
  return generators.resolve(config.generator, config.generator_options.to_dict())


def _check_generator(config: ml_collections.ConfigDict) -> None:
  if not config.generator:
    raise InvalidValue(
      "config.generator is empty: expected a converted file, pretrained:NAME or "
      "package.module:function; or list finished runs in config.train.data_sets to train on their "
      "data sets; or evaluate a finished run with --config.segmenter=runs/NAME"
    )
  is_missing = ":" not in config.generator and not places.path(config.generator).is_file()
  if config.convert_command and is_missing:
    raise FileNotFoundError(
      f"no generator at config.generator={config.generator}; make it with: {config.convert_command}"
    )


def check_evaluation(config: ml_collections.ConfigDict) -> dict[str, evaluate.Pairs]:
  """Checks the settings of the evaluation; returns its data sets."""
  settings = config.evaluate
  if settings.batch_size < 1:
    raise InvalidValue(
      f"config.evaluate.batch_size={settings.batch_size}: expected at least 1 picture"
    )
  refinement.check_method(settings.refine)
  if settings.saliency:
    saliency.check_installed()
  return evaluate.data_sets(config)
