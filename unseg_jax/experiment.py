"""What a run is: its config checked, what that names opened, and which stages it has.

A config leaves stages out: those that make a data set where it trains on those of other runs, and
the adaptation unless it names pictures.
"""

import dataclasses
import functools
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections

from unseg_jax import generators
from unseg_jax.direction import search
from unseg_jax.evaluation import evaluate, saliency, unlabelled
from unseg_jax.reporting import contents
from unseg_jax.runtime.tracking import EventWriter
from unseg_jax.segmentation import adaptation, batches, data_sets, refinement, step
from unseg_jax.synthesis import candidates, generate, shards

# In the order in which they run; their random streams are numbered by it.
STAGES = ("search", "generate", "train", "adapt", "evaluate", "report")
# Quick to make from the others' results: made anew when settings change, instead of refusing.
DERIVED = ("evaluate", "report")
_OTHER_RUNS = "config.train.data_sets lists the data sets of other runs"
WHY_LEFT_OUT = {
  "search": _OTHER_RUNS,
  "generate": _OTHER_RUNS,
  "adapt": "config.adapt.images names no pictures",
}

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
  """What every stage needs: the resolved config, what it names, and where results go.

  Attributes:
    config: the experiment's.
    workdir: where results go.
    generator: None where the config trains on other runs' data sets.
    data_sets: those of other runs; empty where this run makes its own.
    pictures: what to adapt to; None without the adaptation.
  """

  config: ml_collections.ConfigDict
  workdir: Path
  generator: generators.Generator | None
  data_sets: Sequence[data_sets.DataSet]
  pictures: unlabelled.Pictures | None

  @functools.cached_property
  def events(self) -> EventWriter:
    """Opened by the first stage that writes: a run that is refused or skipped leaves no file."""
    return EventWriter(self.workdir / "events")

  def sources(self, split: str) -> dict[str, batches.Source]:
    """Opens a split of every data set that the segmenter learns from, by its row in the table."""
    if not self.data_sets:
      return {evaluate.SYNTHETIC: shards.read(self.workdir / "generate", split)}
    return {
      f"{evaluate.SYNTHETIC} {found.name}": shards.read(found.folder, split)
      for found in self.data_sets
    }

  def weights(self) -> list[float]:
    """The weights of these data sets, in their order."""
    return [found.weight for found in self.data_sets] or [1.0]

  def key(self, stage: str) -> jax.Array:
    """The PRNG key of a stage's named stream."""
    return jax.random.fold_in(jax.random.key(self.config.seed), STAGES.index(stage))

  def settings(self, stage: str) -> dict[str, Any]:
    """Everything that determines a stage's result: its own settings and those it builds on."""
    names = stages_of(self.config)
    before = names[: names.index(stage) + 1]
    config = self.config.to_dict()
    # How much is computed at once changes nothing, but where a rule looks at the whole chunk.
    del config["search"]["microbatch"]
    if config["generate"]["rule"] != "std":
      del config["generate"]["chunk"]
    # What is off is not remembered: workdirs from before there was such a setting are continued.
    if not config["train"]["backgrounds"]["share"]:
      del config["train"]["backgrounds"]
    del config["train"]["data_sets"]
    if self.data_sets:
      config["train"]["data_sets"] = data_sets.settings(self.data_sets)
    if self.pictures:
      config["adapt"]["images"] = self.pictures.identity
    settings = {"seed": config["seed"]} | {name: config[name] for name in before}
    if self.generator:
      settings["generator"] = self.generator.identity
    if stage == "search" and self.config.search.restarts > 1:
      # The restarts are ranked by the candidates that they make.
      settings["generate"] = {
        name: value for name, value in config["generate"].items() if name in candidates.SETTINGS
      }
    return settings | ({"data_root": config["data_root"]} if stage in DERIVED else {})


def stages_of(config: ml_collections.ConfigDict) -> list[str]:
  """The names of the stages that a config does not leave out, in order."""
  left_out = [] if config.adapt.images else ["adapt"]
  if config.train.data_sets:
    left_out += ["search", "generate"]
  return [stage for stage in STAGES if stage not in left_out]


def choose(stages: Sequence[str], config: ml_collections.ConfigDict) -> list[str]:
  """Returns the stages to run; raises a ValueError where one of them is not there to run."""
  there = stages_of(config)
  if unknown := set(stages) - set(STAGES):
    raise ValueError(f"unknown stages {sorted(unknown)}; expected some of {','.join(there)}")
  if not stages:
    raise ValueError(f"no stages to run; expected some of {','.join(there)}")
  if set(stages) == set(STAGES):
    if config.train.data_sets:
      log.info("stages search and generate: left out, as %s", WHY_LEFT_OUT["search"])
    return there
  for stage in stages:
    if stage not in there:
      raise ValueError(
        f"there is no stage {stage} to run, as {WHY_LEFT_OUT[stage]}; expected some of "
        f"{','.join(there)}"
      )
  return list(stages)


def needed(stage: str, config: ml_collections.ConfigDict) -> list[str]:
  """The stages whose results a stage reads; it runs without those derived."""
  names = stages_of(config)
  return [name for name in names[: names.index(stage)] if name not in DERIVED]


def open_run(config: ml_collections.ConfigDict, directory: Path) -> Run:
  """Opens what a config names, and raises at once for what would fail late.

  Args:
    config: the resolved config.
    directory: the workdir.

  Raises:
    ValueError, FileNotFoundError, ImportError: a setting makes no sense, or a file, a folder or a
      package is not there.
  """
  found, generator, pictures = data_sets.find(config.train.data_sets), None, None
  if not found:
    _check_generator(config)
    search.check_config(config.search)
    generate.check_config(config.generate, config.search.directions)
  step.check_config(config.train)
  if config.adapt.images:
    adaptation.check_config(config.adapt)
    if not found and generate.on_the_fly(config.generate):
      raise ValueError(
        f"config.adapt.images={config.adapt.images}: the adaptation needs synthetic pairs on disk; "
        "set config.generate.num_images.train to how many"
      )
    pictures = unlabelled.open_pictures(config.adapt.images, config.data_root)
  check_evaluation(config)
  contents.find_pictures(config.report.pictures)
  if not found:
    generator = generators.resolve(config.generator, config.generator_options.to_dict())
  return Run(config, directory, generator, found, pictures)


def _check_generator(config: ml_collections.ConfigDict) -> None:
  if not config.generator:
    raise ValueError(
      "config.generator is empty: expected a converted file, pretrained:NAME or "
      "package.module:function; or list finished runs in config.train.data_sets to train on theirs"
    )
  if config.convert_command and not (":" in config.generator or Path(config.generator).is_file()):
    raise FileNotFoundError(
      f"no generator at config.generator={config.generator}; make it with\n"
      f"  {config.convert_command}"
    )


def check_evaluation(config: ml_collections.ConfigDict) -> dict[str, Collection[evaluate.Pair]]:
  """Raises for settings of the evaluation that would fail late; returns the data sets."""
  settings = config.evaluate
  if settings.batch_size < 1:
    raise ValueError(
      f"config.evaluate.batch_size={settings.batch_size}: expected at least 1 picture"
    )
  refinement.check_method(settings.refine)
  if settings.saliency:
    saliency.check_installed()
  return evaluate.data_sets(config)
