"""The stages in order, each skipped when its result is already there.

config -> generator -> direction -> (image, mask) records -> segmenter -> metrics, report.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from unseg_jax import (
  evaluation,
  generators,
  pictures,
  progress,
  refinement,
  report,
  saliency,
  search,
  synthesis,
  tables,
  training,
  workdir,
)
from unseg_jax.data import folder as folder_data
from unseg_jax.data import synthetic
from unseg_jax.segmenter import Segmenter
from unseg_jax.tracking import EventWriter

EXAMPLE = "example:"
Scores = dict[str, dict[str, float]]
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Run:
  """What every stage needs: the resolved config, its generator, and where results go."""

  config: ml_collections.ConfigDict
  generator: generators.Generator
  workdir: Path

  @functools.cached_property
  def events(self) -> EventWriter:
    """Opened by the first stage that writes: a run that is refused or skipped leaves no file."""
    return EventWriter(self.workdir / "events")

  def key(self, stage: str) -> jax.Array:
    """The PRNG key of a stage's named stream."""
    return jax.random.fold_in(jax.random.key(self.config.seed), list(STAGES).index(stage))

  def settings(self, stage: str) -> dict[str, Any]:
    """Everything that determines a stage's result: its own settings and those it builds on."""
    names = list(STAGES)
    before = names[: names.index(stage) + 1]
    config = self.config.to_dict()
    settings = {"generator": self.generator.identity, "seed": config["seed"]} | {
      name: config[name] for name in before
    }
    return settings | ({"data_root": config["data_root"]} if stage in DERIVED else {})


def run(config: ml_collections.ConfigDict, directory: Path, stages: Sequence[str]) -> None:
  """Runs the stages of an experiment.

  Args:
    config: the resolved config (`default_config.py` describes it).
    directory: the workdir; made if it is missing, continued if it is not.
    stages: names of `STAGES`, run in their own order.

  Raises:
    workdir.StageMismatch: the workdir holds results of other settings, of these stages or of those
      that they build on.
    ValueError, FileNotFoundError: the config is wrong, or a stage to build on is not complete.
      All of these are found before any work is done.
  """
  if unknown := set(stages) - set(STAGES):
    raise ValueError(f"unknown stages {sorted(unknown)}; expected some of {','.join(STAGES)}")
  if not stages:
    raise ValueError(f"no stages to run; expected some of {','.join(STAGES)}")
  if config.segmenter:
    return evaluate_segmenter(config, directory)
  check_inputs(config)
  generator = generators.resolve(config.generator, config.generator_options.to_dict())
  this = Run(config, generator, directory)
  # All refusals come before any work.
  for stage in STAGES:
    if stage in DERIVED:
      workdir.restart_stage_if_changed(directory / stage, this.settings(stage))
    workdir.is_complete(directory / stage, this.settings(stage))
  for stage in stages:
    for needed in _needed(stage):
      if needed not in stages:
        workdir.require_stage(directory / needed, needed)
  workdir.write_json(directory / "config.json", config.to_dict())
  for stage in STAGES:
    if stage in stages:
      _run_stage(this, stage)


def _needed(stage: str) -> list[str]:
  """The stages whose results a stage reads; it runs without those derived."""
  names = list(STAGES)
  return [name for name in names[: names.index(stage)] if name not in DERIVED]


def evaluate_segmenter(config: ml_collections.ConfigDict, directory: Path) -> None:
  """Scores `config.segmenter` on the real data sets that the config lists, without any training.

  Args:
    config: the resolved config.
    directory: receives `metrics.json`, `metrics.md` and `metrics.txt`.

  Raises:
    ValueError, FileNotFoundError: the segmenter or a data set is not there, or no data set is
      listed.
  """
  data_sets = _check_evaluation(config)
  if not data_sets:
    raise ValueError(
      "config.evaluate lists nothing to evaluate on; set config.evaluate.benchmarks, .folders or "
      ".tfds"
    )
  segmenter = Segmenter.restore(config.segmenter)
  _write_scores(_evaluate_real(config, segmenter, data_sets), config, directory)


def _run_stage(this: Run, stage: str) -> None:
  folder, settings = this.workdir / stage, this.settings(stage)
  if workdir.is_complete(folder, settings):
    log.info("stage %s: complete, skipped (%s)", stage, folder)
    return
  log.info("stage %s: %s", stage, folder)
  workdir.begin_stage(folder, settings)
  STAGES[stage](this, folder)
  workdir.finish_stage(folder)


def check_inputs(config: ml_collections.ConfigDict) -> None:
  """Raises at once for what would fail late: settings, files and folders that are not there."""
  if config.convert_command and not (":" in config.generator or Path(config.generator).is_file()):
    raise FileNotFoundError(
      f"no generator at config.generator={config.generator}; make it with\n"
      f"  {config.convert_command}"
    )
  synthesis.check_config(config.generate)
  training.schedule(config.train)
  _check_evaluation(config)
  _report_pictures(config)


def _check_evaluation(config: ml_collections.ConfigDict) -> dict[str, Collection[evaluation.Pair]]:
  """Raises for settings of the evaluation that would fail late; returns the data sets."""
  settings = config.evaluate
  if settings.batch_size < 1:
    raise ValueError(
      f"config.evaluate.batch_size={settings.batch_size}: expected at least 1 picture"
    )
  refinement.check_method(settings.refine)
  if settings.saliency:
    saliency.check_installed()
  return evaluation.data_sets(config)


def _search(this: Run, folder: Path) -> None:
  direction = search.search(this.generator, this.config.search, this.key("search"), folder)
  # Latents that the search has not seen.
  picture = search.direction_picture(
    this.generator,
    direction,
    jax.random.fold_in(this.key("search"), 1),
    this.config.generate.shift,
  )
  with workdir.whole_file(folder / "direction.png") as temporary:
    temporary.write_bytes(pictures.png_bytes(picture))
  this.events.curves("search", workdir.read_json(folder / "history.json"))
  this.events.picture("search/direction", picture)


def _generate(this: Run, folder: Path) -> None:
  direction = np.load(this.workdir / "search" / "direction.npy", allow_pickle=False)
  acceptance = synthesis.generate(
    this.generator, this.config.generate, direction, this.key("generate"), folder
  )
  rates = acceptance.rates()
  workdir.write_json(folder / "filters.json", {"candidates": acceptance.candidates, "rates": rates})
  this.events.scalars({f"generate/accepted_{name}": rate for name, rate in rates.items()})


def _train(this: Run, folder: Path) -> None:
  sources = {
    split: synthetic.read(this.workdir / "generate", split) for split in ("train", "validation")
  }
  training.train(this.config.train, sources, this.key("train"), folder)
  for name, history in workdir.read_json(folder / "history.json").items():
    this.events.curves(f"train/{name.lower()}", history)


def _evaluate(this: Run, folder: Path) -> None:
  segmenter = Segmenter.restore(this.workdir)
  held_out = synthetic.read(this.workdir / "generate", "test")
  scores = {
    evaluation.SYNTHETIC: _evaluate_on(this.config, segmenter, evaluation.synthetic_pairs(held_out))
  }
  scores |= _evaluate_real(this.config, segmenter, evaluation.data_sets(this.config))
  _write_scores(scores, this.config, this.workdir)
  this.events.scalars(
    {f"evaluate/{name}/{metric}": x for name, row in scores.items() for metric, x in row.items()}
  )


def _evaluate_real(
  config: ml_collections.ConfigDict,
  segmenter: Segmenter,
  data_sets: dict[str, Collection[evaluation.Pair]],
) -> Scores:
  return {
    name: _evaluate_on(config, segmenter, progress.counted(f"evaluate {name}", pairs))
    for name, pairs in data_sets.items()
  }


def _evaluate_on(
  config, segmenter: Segmenter, pairs: Iterable[evaluation.Pair]
) -> dict[str, float]:
  settings = config.evaluate
  return evaluation.evaluate(
    segmenter, pairs, settings.batch_size, settings.refine, settings.saliency
  )


def _write_scores(scores: Scores, config: ml_collections.ConfigDict, directory: Path) -> None:
  """Prints the table of all data sets and saves it as JSON, Markdown and text."""
  reference = config.evaluate.reference.to_dict()
  workdir.write_json(directory / "metrics.json", scores)
  for style, suffix in (("markdown", "md"), ("text", "txt")):
    table = tables.metrics_table(scores, reference, style)
    with workdir.whole_file(directory / f"metrics.{suffix}") as temporary:
      temporary.write_text(table + "\n")
  print(table)


def _report(this: Run, folder: Path) -> None:
  segmenter = Segmenter.restore(this.workdir)
  held_out = synthetic.read(this.workdir / "generate", "test")
  samples = [held_out[i] for i in range(min(len(held_out), this.config.report.samples))]
  photographs = {
    path.stem: folder_data.read_picture(path) for path in _report_pictures(this.config)
  }
  metrics_path = this.workdir / "metrics.json"
  contents = report.ReportContents(
    title=this.config.name,
    config=this.config.to_dict(),
    direction_picture=folder_data.read_picture(this.workdir / "search" / "direction.png"),
    samples=[(record["image"], record["mask"][..., 0] > 127) for record in samples],
    filters=workdir.read_json(this.workdir / "generate" / "filters.json")["rates"],
    curves={
      "Search": workdir.read_json(this.workdir / "search" / "history.json"),
      **workdir.read_json(this.workdir / "train" / "history.json"),
    },
    metrics=workdir.read_json(metrics_path) if metrics_path.exists() else {},
    predictions=[
      report.Prediction(name, image, segmenter(image)) for name, image in photographs.items()
    ],
  )
  report.write(contents, this.workdir / "report.html")
  print(f"report: {this.workdir / 'report.html'}")


def _report_pictures(config: ml_collections.ConfigDict) -> list[Path]:
  """The pictures to segment in the report; `example:NAME` ships with the package."""
  examples = resources.files("unseg_jax") / "pretrained" / "example"
  found = []
  for name in config.report.pictures:
    if name.startswith(EXAMPLE):
      name = str(examples / name.removeprefix(EXAMPLE))
    found += folder_data.find_pictures(name)
  return found


STAGES: dict[str, Callable[[Run, Path], None]] = {
  "search": _search,
  "generate": _generate,
  "train": _train,
  "evaluate": _evaluate,
  "report": _report,
}
# Quick to make from the others' results: made anew when settings change, instead of refusing.
DERIVED = ("evaluate", "report")
