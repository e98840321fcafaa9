"""The stages: their names, order, functions, dependencies and recorded settings.

A config can leave stages out. If it trains on data sets of other runs, it omits the stages that
make a data set; if it names no pictures to adapt to, it omits the adaptation.
"""

import functools
import itertools
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from unseg_jax import default_config
from unseg_jax.adaptation import adapt
from unseg_jax.array_types import Float, Key, UInt8
from unseg_jax.artifacts import stage_records
from unseg_jax.direction import previews, restarts, results, search
from unseg_jax.errors import InvalidValue
from unseg_jax.evaluation import baselines, evaluate
from unseg_jax.experiment import Run
from unseg_jax.generators import Generator
from unseg_jax.images import drawing
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.reporting import contents, report, tables
from unseg_jax.runtime import parallel, progress
from unseg_jax.segmentation import batches, data_sets, train
from unseg_jax.segmentation.step import Batch, TrainState
from unseg_jax.storage import places, whole_files
from unseg_jax.synthesis import candidates, generate, on_the_fly, shards

Scores = dict[str, dict[str, float]]

# Stages that are quick to recompute. If their settings change, they are redone, not refused.
DERIVED = ("evaluate", "report")
_OTHER_RUNS = "config.train.data_sets lists the data sets of other runs"
WHY_LEFT_OUT = {
  "search": _OTHER_RUNS,
  "generate": _OTHER_RUNS,
  "adapt": "config.adapt.images names no pictures",
}

# The number of validation pictures in the events of each checkpoint.
PICTURES_SHOWN = 4

log = logging.getLogger(__name__)


def stages_of(config: ml_collections.ConfigDict) -> list[str]:
  """The names of the stages that a config does not leave out, in order."""
  left_out = stage_records.left_out(config.to_dict())
  return [stage for stage in STAGES if stage not in left_out]


def select(stages: Collection[str], config: ml_collections.ConfigDict) -> list[str]:
  """Returns the stages to run; raises a ValueError if the config leaves one of them out."""
  known = stages_of(config)
  if unknown := set(stages) - set(STAGES):
    raise InvalidValue(f"unknown stages {sorted(unknown)}; expected some of {','.join(known)}")
  if not stages:
    raise InvalidValue(f"no stages to run; expected some of {','.join(known)}")
  if set(stages) == set(STAGES):
    if config.train.data_sets:
      log.info("stages search and generate: left out, because %s", WHY_LEFT_OUT["search"])
    return known
  for stage in stages:
    if stage not in known:
      raise InvalidValue(
        f"cannot run the stage {stage}, because {WHY_LEFT_OUT[stage]}; expected some of "
        f"{','.join(known)}"
      )
  return list(stages)


def needed(stage: str, config: ml_collections.ConfigDict) -> list[str]:
  """Returns the stages whose results a stage needs; derived ones are optional."""
  names = stages_of(config)
  return [name for name in names[: names.index(stage)] if name not in DERIVED]


def stream_key(this: Run, stage: str) -> Key[jax.Array, ""]:
  """Returns the PRNG key of a stage's random stream."""
  return parallel.fold_in(parallel.key(this.config.seed), list(STAGES).index(stage))


def settings_of(this: Run, stage: str) -> dict[str, Any]:
  """Returns all settings that determine a stage's result, including those of earlier stages."""
  names = stages_of(this.config)
  before = names[: names.index(stage) + 1]
  config = this.config.to_dict()
  # Batch sizes do not affect results, except for a rule that depends on all masks of a chunk.
  del config["search"]["microbatch"]
  if config["generate"]["rule"] != "std":
    del config["generate"]["chunk"]
  # A disabled option is not recorded, so that workdirs of versions without it can be continued.
  if not config["train"]["copy_paste"]["share"]:
    del config["train"]["copy_paste"]
  del config["train"]["data_sets"]
  if this.data_sets:
    config["train"]["data_sets"] = data_sets.settings(this.data_sets)
  if this.pictures:
    config["adapt"]["images"] = this.pictures.identity
  settings = {"seed": config["seed"]} | {name: config[name] for name in before}
  if this.generator:
    settings["generator"] = this.generator.identity
  if stage == "search" and this.config.search.restarts > 1:
    # Restarts are ranked by their candidates, which depend on these settings.
    settings["generate"] = {
      name: value for name, value in config["generate"].items() if name in candidates.SETTINGS
    }
  return settings | ({"data_root": config["data_root"]} if stage in DERIVED else {})


def check_records(this: Run, stages: Collection[str]) -> list[str]:
  """Checks the results in the workdir against the settings, before anything is changed.

  Args:
    this: the run.
    stages: the names of the stages to run.

  Returns:
    The stages that are incomplete and will be computed.

  Raises:
    stage_records.StageMismatch: the workdir contains results of different settings, of these stages
      or of stages that they need.
    FileNotFoundError: a required stage is not complete.
  """
  for stage in STAGES:
    if stage not in stages_of(this.config):
      stage_records.require_absent(this.workdir / stage, WHY_LEFT_OUT[stage])
    elif stage not in DERIVED:
      stage_records.is_complete(this.workdir / stage, settings_of(this, stage))
  for stage in stages:
    for name in needed(stage, this.config):
      if name not in stages:
        stage_records.require_stage(this.workdir / name, name)
  return [stage for stage in STAGES if stage in stages and not is_done(this, stage)]


def is_done(this: Run, stage: str) -> bool:
  """Whether a stage has a complete result of these settings; does not raise a StageMismatch."""
  folder, settings = this.workdir / stage, stage_records.flatten(settings_of(this, stage))
  recorded = stage_records.recorded_settings(folder)
  return recorded == settings and stage_records.has_complete_stage(folder)


def recorded_types(directory: Path) -> dict[str, str]:
  """Returns the dtypes of a workdir's results, by the stage whose setting it is.

  A stage's own record takes precedence. If the stage has not begun, the record of an earlier stage
  is used that depends on the setting: restarts of a search are ranked by candidates. Records of
  later stages are ignored, since they were made from a result that no longer exists.
  """
  types = {}
  for stage in default_config.TYPED:
    names = list(STAGES)
    for name in reversed(names[: names.index(stage) + 1]):
      settings = stage_records.recorded_settings(directory / name)
      if f"{stage}.dtype" in settings:
        types[stage] = settings[f"{stage}.dtype"]
        break
  return types


def _search(this: Run, folder: Path) -> None:
  settings, key = this.config.generate, stream_key(this, "search")
  events = this.events("search")
  outcome = search.search(_generator(this), this.config.search, key, folder, events)
  if not parallel.is_primary():
    return
  # Keys of latents that the search did not use.
  picture_key, ranking_key = (parallel.fold_in(key, number) for number in (1, 2))
  make_masks = functools.partial(candidates.make_masks, config=settings)
  prepared = previews.prepare(_generator(this), picture_key, make_masks, settings.shift)
  kept = 0
  if len(outcome.directions) > 1:
    judge = candidates.first_masks(_generator(this), settings, ranking_key, restarts.CANDIDATES)
    scores = restarts.scores(outcome, judge)
    kept = restarts.best(scores)
    print(tables.restarts_table(results.write_restarts(outcome, scores, kept, prepared, folder)))
  picture = results.write(outcome, kept, prepared, folder)
  events.pictures(this.config.search.steps, "direction", picture[None])
  events.flush(publish=True)


def _generator(this: Run) -> Generator:
  """Returns the generator. A config without one leaves out the stages that need it."""
  assert this.generator
  return this.generator


def _directions(this: Run) -> Float[np.ndarray, "k ..."]:
  return results.read(this.workdir / "search")


def _generate(this: Run, folder: Path) -> None:
  acceptance = generate.generate(
    _generator(this),
    this.config.generate,
    _directions(this),
    stream_key(this, "generate"),
    folder,
    this.workers,
    this.events("generate"),
  )
  if not parallel.is_primary():
    return
  rates = acceptance.rates()
  whole_files.write_json(
    folder / "filters.json", {"candidates": acceptance.candidates, "rates": rates}
  )


def _train(this: Run, folder: Path) -> None:
  config, key = this.config, stream_key(this, "train")
  pairs: Callable[[TrainState], Iterator[Batch]]
  if this.generator and generate.on_the_fly(config.generate):
    stream = generate.split_key(stream_key(this, "generate"), "train")
    pairs = functools.partial(on_the_fly.batches, this.generator, _directions(this), config, stream)
  else:
    pairs = functools.partial(_from_disk, this, key)
  events, draw = this.events("train"), _drawing(this)
  train.train(config.train, pairs, _validation(this), key, folder, events=events, draw=draw)


def _from_disk(this: Run, key: Key[jax.Array, ""], state: TrainState) -> Iterator[Batch]:
  sources = list(this.sources("train").values())
  settings = this.config.train
  return batches.from_disk(sources, this.weights(), settings, key, state, this.workers)


def _validation(this: Run) -> Callable[[Mapping[str, Any]], dict[str, float]]:
  """Returns a function that evaluates a U-Net on the validation splits of all data sets."""
  sources, settings = this.sources("validation").values(), this.config.train

  def validate(variables):
    segmenter = Segmenter.create(variables, settings.features, settings.image_size)
    pairs = itertools.chain.from_iterable(map(evaluate.HeldOut, sources))
    return evaluate.evaluate(segmenter, pairs)

  return validate


def _drawing(this: Run) -> Callable[[Mapping[str, Any]], UInt8[np.ndarray, "n h w 3"]]:
  """Returns a function that draws a U-Net's masks of a few validation pictures."""
  settings, source = this.config.train, next(iter(this.sources("validation").values()))

  def draw(variables):
    names = ("params", "batch_stats")
    parts = {name: variables[name] for name in names}
    segmenter = Segmenter.create(parts, settings.features, settings.image_size)
    few = range(min(PICTURES_SHOWN, len(source)))
    images = [image for image, _ in shards.pairs(source, few)]
    return np.stack([drawing.overlay(image, segmenter(image)) for image in images])

  return draw


def _adapt(this: Run, folder: Path) -> None:
  sources = list(this.sources("train").values())
  before = Segmenter.restore(this.workdir, adapted=False)
  assert this.pictures  # Otherwise the config leaves this stage out.
  adapt.adapt(
    this.config,
    before,
    (this.pictures.count, this.pictures.read),
    sources,
    this.weights(),
    _validation(this),
    stream_key(this, "adapt"),
    folder,
    this.workers,
    this.events("adapt"),
    _drawing(this),
  )


def _evaluate(this: Run, folder: Path) -> None:
  segmenters = {"": Segmenter.restore(this.workdir)}
  if this.pictures:
    segmenters[evaluate.BEFORE] = Segmenter.restore(this.workdir, adapted=False)
  held_out = {name: evaluate.HeldOut(split) for name, split in this.sources("test").items()}
  every = held_out | evaluate.data_sets(this.config)
  scores, beside, counts = score(this.config, segmenters, every)
  write_scores(scores, beside, counts, this.config, this.workdir)
  if parallel.is_primary():
    events = this.events("evaluate")
    events.restart(0)  # The stage may run again with other settings.
    events.point(
      0, {f"{name}/{metric}": x for name, row in scores.items() for metric, x in row.items()}
    )
    events.flush(publish=True)


def score(
  config: ml_collections.ConfigDict,
  segmenters: Mapping[str, Segmenter],
  data_sets: Mapping[str, evaluate.Pairs | evaluate.HeldOut],
) -> tuple[Scores, dict[str, Scores], dict[str, int]]:
  """Scores segmenters, and the baselines that ignore the image, on several data sets.

  Args:
    config: the experiment's.
    segmenters: by the suffix that their rows get.
    data_sets: by name.

  Returns:
    The segmenters' scores by data set and suffix; by data set, those of each baseline; and by data
    set, its number of images.
  """
  scores: Scores = {}
  beside: dict[str, Scores] = {}
  for name, pairs in data_sets.items():
    for suffix, segmenter in segmenters.items():
      counted = progress.counted(f"evaluate {name}{suffix}", pairs)
      # A baseline scores the same whichever segmenter it is compared with.
      others = {} if name in beside else baselines.BASELINES
      compared = evaluate.compare(segmenter, counted, **_evaluation(config), beside=others)
      scores[name + suffix] = compared.pop(evaluate.SEGMENTER)
      beside.setdefault(name, compared)
  return scores, beside, {name: len(pairs.source) for name, pairs in data_sets.items()}


def _evaluation(config: ml_collections.ConfigDict) -> dict[str, Any]:
  settings = config.evaluate
  return {
    "batch_size": settings.batch_size,
    "refine": settings.refine,
    "with_saliency": settings.saliency,
    "average": settings.average,
  }


def write_scores(
  scores: Scores,
  beside: dict[str, Scores],
  counts: dict[str, int],
  config: ml_collections.ConfigDict,
  directory: Path,
) -> None:
  """Prints the table of all data sets and saves it as JSON, Markdown and text, on one process."""
  if not parallel.is_primary():
    return
  reference = config.evaluate.reference.to_dict()
  whole_files.write_json(directory / "metrics.json", scores)
  whole_files.write_json(directory / "baselines.json", beside)
  whole_files.write_json(directory / "image_counts.json", counts)
  for style, suffix in (("markdown", "md"), ("text", "txt")):
    table = tables.metrics_table(scores, reference, style, beside)
    whole_files.write_bytes(directory / f"metrics.{suffix}", (table + "\n").encode())
  print(table)


def _report(this: Run, folder: Path) -> None:
  settings = this.config.report
  listed = contents.find_pictures(settings.pictures)
  collected = contents.collect(this.workdir, listed, settings.samples)
  report.write(collected, this.workdir / "report.html")
  print(f"report: {places.in_urls(str(this.workdir / 'report.html'))}")


# In the order in which they run, which also numbers their random streams.
STAGES: dict[str, Callable[[Run, Path], None]] = {
  "search": _search,
  "generate": _generate,
  "train": _train,
  "adapt": _adapt,
  "evaluate": _evaluate,
  "report": _report,
}
