"""The stages in order, each skipped when its result is already there.

config -> generator -> direction -> (image, mask) records -> segmenter -> metrics, report.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from unseg_jax import generators
from unseg_jax.direction import pictures as direction_pictures
from unseg_jax.direction import restarts, search
from unseg_jax.evaluation import evaluate, saliency
from unseg_jax.reporting import contents, report, tables
from unseg_jax.runtime import parallel, pictures, preemption, progress, workdir
from unseg_jax.runtime.tracking import EventWriter
from unseg_jax.segmentation import refinement, train
from unseg_jax.segmentation.segmenter import Segmenter
from unseg_jax.synthesis import candidates, generate, shards

Scores = dict[str, dict[str, float]]
FRAME_SECONDS = 0.08  # Of the animated direction.
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
    # How much is computed at once changes nothing, but where a rule looks at the whole chunk.
    del config["search"]["microbatch"]
    if config["generate"]["rule"] != "std":
      del config["generate"]["chunk"]
    settings = {"generator": self.generator.identity, "seed": config["seed"]} | {
      name: config[name] for name in before
    }
    if stage == "search" and self.config.search.restarts > 1:
      # The restarts are ranked by the candidates that they make.
      settings["generate"] = {
        name: value for name, value in config["generate"].items() if name in candidates.SETTINGS
      }
    return settings | ({"data_root": config["data_root"]} if stage in DERIVED else {})


def run(
  config: ml_collections.ConfigDict,
  directory: Path | str,
  stages: Sequence[str],
  repair: bool = False,
) -> None:
  """Runs the stages of an experiment.

  Args:
    config: the resolved config (`default_config.py` describes it).
    directory: the workdir; made if it is missing, continued if it is not.
    stages: names of `STAGES`, run in their own order.
    repair: whether to look for damaged shards of the data set first, and make these anew.

  Raises:
    preemption.Preempted: the run was asked to leave; what it had done is saved.
    workdir.StageMismatch: the workdir holds results of other settings, of these stages or of those
      that they build on.
    ValueError, FileNotFoundError: the config is wrong, or a stage to build on is not complete.
      All of these are found before any work is done.
  """
  directory = Path(directory)
  if unknown := set(stages) - set(STAGES):
    raise ValueError(f"unknown stages {sorted(unknown)}; expected some of {','.join(STAGES)}")
  if not stages:
    raise ValueError(f"no stages to run; expected some of {','.join(STAGES)}")
  if config.segmenter:
    return evaluate_segmenter(config, directory)
  check_inputs(config)
  generator = generators.resolve(config.generator, config.generator_options.to_dict())
  this = Run(config, generator, directory)
  # All refusals come before any work, and before any process changes anything.
  for stage in STAGES:
    if stage not in DERIVED:
      workdir.is_complete(directory / stage, this.settings(stage))
  for stage in stages:
    for needed in _needed(stage):
      if needed not in stages:
        workdir.require_stage(directory / needed, needed)
  parallel.barrier("inputs are checked")
  if parallel.is_primary():
    if repair:
      _remove_damaged_shards(directory / "generate")
    for stage in DERIVED:
      workdir.restart_stage_if_changed(directory / stage, this.settings(stage))
    workdir.write_json(directory / "config.json", config.to_dict())
  parallel.barrier("the workdir is ready")
  for stage in STAGES:
    if stage in stages:
      _run_stage(this, stage)


def _remove_damaged_shards(folder: Path) -> None:
  """Removes the shards that are not as they were written, so that the stage makes them anew."""
  damaged = shards.damaged_shards(folder)
  for path in damaged:
    log.info("damaged, to be made anew: %s", path)
    path.unlink(missing_ok=True)
  if damaged and (folder / workdir.RECORD).exists():
    workdir.reopen_stage(folder)
  log.info("%d damaged shards in %s", len(damaged), folder)


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
  preemption.leave_if_requested(f"the stages before {stage} are complete")
  log.info("stage %s: %s", stage, folder)
  parallel.barrier(f"{stage} begins")
  if parallel.is_primary():
    workdir.begin_stage(folder, settings)
  parallel.barrier(f"{stage} is begun")
  # The last stages take little time: one process does them, and the others wait.
  if parallel.is_primary() or stage not in DERIVED:
    STAGES[stage](this, folder)
  parallel.barrier(f"{stage} ends")
  if parallel.is_primary():
    workdir.finish_stage(folder)
  parallel.barrier(f"{stage} is complete")


def check_inputs(config: ml_collections.ConfigDict) -> None:
  """Raises at once for what would fail late: settings, files and folders that are not there."""
  if config.convert_command and not (":" in config.generator or Path(config.generator).is_file()):
    raise FileNotFoundError(
      f"no generator at config.generator={config.generator}; make it with\n"
      f"  {config.convert_command}"
    )
  search.check_config(config.search)
  generate.check_config(config.generate, config.search.directions)
  train.check_config(config.train)
  _check_evaluation(config)
  contents.find_pictures(config.report.pictures)


def _check_evaluation(config: ml_collections.ConfigDict) -> dict[str, Collection[evaluate.Pair]]:
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


def _search(this: Run, folder: Path) -> None:
  settings, key = this.config.generate, this.key("search")
  found = search.search(this.generator, this.config.search, key, folder)
  if not parallel.is_primary():
    return
  # Latents that the search has not seen.
  picture_key, ranking_key = (jax.random.fold_in(key, number) for number in (1, 2))

  make_masks = functools.partial(candidates.make_masks, config=settings)
  drawing = direction_pictures.prepare(this.generator, picture_key, make_masks, settings.shift)

  def draw(directions, name):
    picture = direction_pictures.still(drawing, directions)
    workdir.write_bytes(folder / name, pictures.png_bytes(picture))
    return picture

  chosen = 0
  if len(found.directions) > 1:
    judge = candidates.first_masks(this.generator, settings, ranking_key, restarts.CANDIDATES)
    scores = restarts.scores(found, judge)
    chosen = restarts.best(scores)
    for number, directions in enumerate(found.directions):
      draw(directions, f"restart-{number}.png")
    rows = [
      {"restart": number, "chosen": number == chosen, **dataclasses.asdict(score)}
      for number, score in enumerate(scores)
    ]
    workdir.write_json(folder / "restarts.json", rows)
    print(tables.restarts_table(rows))
  directions, history = found.directions[chosen], found.history(chosen)
  picture = draw(directions, "direction.png")
  frames = direction_pictures.moving(drawing, directions)
  animation = pictures.animation_bytes(pictures.there_and_back(frames), FRAME_SECONDS)
  workdir.write_bytes(folder / "direction.webp", animation)
  workdir.write_json(folder / "history.json", history)
  workdir.write_array(folder / "direction.npy", directions)
  this.events.curves("search", history)
  this.events.picture("search/direction", picture)


def _directions(this: Run) -> np.ndarray:
  """What the search found: `[K, *latent_shape]`."""
  return np.load(this.workdir / "search" / "direction.npy", allow_pickle=False)


def _generate(this: Run, folder: Path) -> None:
  acceptance = generate.generate(
    this.generator, this.config.generate, _directions(this), this.key("generate"), folder
  )
  if not parallel.is_primary():
    return
  rates = acceptance.rates()
  workdir.write_json(folder / "filters.json", {"candidates": acceptance.candidates, "rates": rates})
  this.events.scalars({f"generate/accepted_{name}": rate for name, rate in rates.items()})


def _train(this: Run, folder: Path) -> None:
  config, key = this.config, this.key("train")
  data_set = this.workdir / "generate"
  if generate.on_the_fly(config.generate):
    stream = generate.split_key(this.key("generate"), "train")
    begin = train.from_generator(config, this.generator, _directions(this), stream)
  else:
    begin = train.from_disk(config.train, shards.read(data_set, "train"), key)
  validation = shards.read(data_set, "validation")

  def validate(segmenter):
    return evaluate.evaluate(segmenter, shards.pairs(validation))

  train.train(config.train, begin, validate, key, folder)
  if parallel.is_primary():
    for name, history in workdir.read_json(folder / "history.json").items():
      this.events.curves(f"train/{name.lower()}", history)


def _evaluate(this: Run, folder: Path) -> None:
  segmenter = Segmenter.restore(this.workdir)
  held_out = shards.read(this.workdir / "generate", "test")
  scores = {evaluate.SYNTHETIC: _evaluate_on(this.config, segmenter, shards.pairs(held_out))}
  scores |= _evaluate_real(this.config, segmenter, evaluate.data_sets(this.config))
  _write_scores(scores, this.config, this.workdir)
  this.events.scalars(
    {f"evaluate/{name}/{metric}": x for name, row in scores.items() for metric, x in row.items()}
  )


def _evaluate_real(
  config: ml_collections.ConfigDict,
  segmenter: Segmenter,
  data_sets: dict[str, Collection[evaluate.Pair]],
) -> Scores:
  return {
    name: _evaluate_on(config, segmenter, progress.counted(f"evaluate {name}", pairs))
    for name, pairs in data_sets.items()
  }


def _evaluate_on(config, segmenter: Segmenter, pairs: Iterable[evaluate.Pair]) -> dict[str, float]:
  settings = config.evaluate
  return evaluate.evaluate(
    segmenter, pairs, settings.batch_size, settings.refine, settings.saliency
  )


def _write_scores(scores: Scores, config: ml_collections.ConfigDict, directory: Path) -> None:
  """Prints the table of all data sets and saves it as JSON, Markdown and text."""
  reference = config.evaluate.reference.to_dict()
  workdir.write_json(directory / "metrics.json", scores)
  for style, suffix in (("markdown", "md"), ("text", "txt")):
    table = tables.metrics_table(scores, reference, style)
    workdir.write_bytes(directory / f"metrics.{suffix}", (table + "\n").encode())
  print(table)


def _report(this: Run, folder: Path) -> None:
  settings = this.config.report
  listed = contents.find_pictures(settings.pictures)
  found = contents.collect(this.workdir, listed, settings.samples)
  report.write(found, this.workdir / "report.html")
  print(f"report: {this.workdir / 'report.html'}")


STAGES: dict[str, Callable[[Run, Path], None]] = {
  "search": _search,
  "generate": _generate,
  "train": _train,
  "evaluate": _evaluate,
  "report": _report,
}
# Quick to make from the others' results: made anew when settings change, instead of refusing.
DERIVED = ("evaluate", "report")
