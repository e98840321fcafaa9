"""The stages in order, each skipped when its result is already there.

config -> generator -> direction -> (image, mask) records -> segmenter -> metrics, report.
"""

import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from unseg_jax import default_config, experiment
from unseg_jax.direction import pictures as direction_pictures
from unseg_jax.direction import restarts, search
from unseg_jax.evaluation import baselines, evaluate
from unseg_jax.experiment import DERIVED, Run
from unseg_jax.reporting import contents, report, tables
from unseg_jax.runtime import parallel, pictures, places, preemption, progress, workdir
from unseg_jax.segmentation import adaptation, train
from unseg_jax.segmentation.segmenter import Segmenter
from unseg_jax.synthesis import candidates, generate, shards

Scores = dict[str, dict[str, float]]
FRAME_SECONDS = 0.08  # Of the animated direction.
log = logging.getLogger(__name__)


def run(
  config: ml_collections.ConfigDict,
  directory: Path | str,
  stages: Sequence[str],
  repair: bool = False,
) -> None:
  """Runs the stages of an experiment.

  Args:
    config: the resolved config (`default_config.py` describes it).
    directory: the workdir, a folder or a URL; made if it is missing, continued if it is not.
    stages: names of `STAGES`, run in their own order; all of them stand for those that the config
      does not leave out.
    repair: whether to look for damaged shards of the data set first, and make these anew.

  Raises:
    preemption.Preempted: the run was asked to leave; what it had done is saved.
    workdir.StageMismatch: the workdir holds results of other settings, of these stages or of those
      that they build on.
    ValueError, FileNotFoundError: the config is wrong, or a stage to build on is not complete.
      All of these are found before any work is done.
  """
  config = default_config.with_types(config)
  stages = experiment.choose(stages, config)
  directory = places.local(directory)
  if config.segmenter:
    return evaluate_segmenter(config, directory)
  this = experiment.open_run(config, directory)
  # All refusals come before any work, and before any process changes anything.
  for stage in STAGES:
    if stage not in experiment.stages_of(config):
      workdir.require_absent(directory / stage, experiment.WHY_LEFT_OUT[stage])
    elif stage not in DERIVED:
      workdir.is_complete(directory / stage, this.settings(stage))
  for stage in stages:
    for name in experiment.needed(stage, config):
      if name not in stages:
        workdir.require_stage(directory / name, name)
  places.barrier("inputs are checked")
  if parallel.is_primary():
    if repair:
      for stage in ("generate", "adapt"):
        _remove_damaged_shards(directory / stage)
    for stage in DERIVED:
      workdir.restart_stage_if_changed(directory / stage, this.settings(stage))
    workdir.write_json(directory / "config.json", config.to_dict())
  places.barrier("the workdir is ready")
  for stage in STAGES:
    if stage in stages:
      _run_stage(this, stage)


def _remove_damaged_shards(folder: Path) -> None:
  """Removes the shards that are not as they were written, so that the stage makes them anew."""
  data_sets = [path.parent for path in sorted(folder.rglob("counts"))]
  damaged = [path for data_set in data_sets for path in shards.damaged_shards(data_set)]
  for path in damaged:
    log.info("damaged, to be made anew: %s", path)
    path.unlink(missing_ok=True)
    places.remove(path)
  if damaged and (folder / workdir.RECORD).exists():
    workdir.reopen_stage(folder)
  log.info("%d damaged shards in %s", len(damaged), folder)


def evaluate_segmenter(config: ml_collections.ConfigDict, directory: Path) -> None:
  """Scores `config.segmenter` on the real data sets that the config lists, without any training.

  Args:
    config: the resolved config.
    directory: receives `metrics.json`, `metrics.md` and `metrics.txt`.

  Raises:
    ValueError, FileNotFoundError: the segmenter or a data set is not there, or no data set is
      listed.
  """
  data_sets = experiment.check_evaluation(config)
  if not data_sets:
    raise ValueError(
      "config.evaluate lists nothing to evaluate on; set config.evaluate.benchmarks, .folders or "
      ".tfds"
    )
  segmenter = Segmenter.restore(config.segmenter)
  _write_scores(*_evaluate_real(config, {"": segmenter}, data_sets), config, directory)


def _run_stage(this: Run, stage: str) -> None:
  folder, settings = this.workdir / stage, this.settings(stage)
  if workdir.is_complete(folder, settings):
    log.info("stage %s: complete, skipped (%s)", stage, places.in_urls(str(folder)))
    return
  preemption.leave_if_requested(f"the stages before {stage} are complete")
  log.info("stage %s: %s", stage, places.in_urls(str(folder)))
  places.barrier(f"{stage} begins")
  if parallel.is_primary():
    workdir.begin_stage(folder, settings)
  places.barrier(f"{stage} is begun")
  # The report takes little time: one process writes it, and the others wait.
  if parallel.is_primary() or stage != "report":
    STAGES[stage](this, folder)
  places.barrier(f"{stage} ends")
  if parallel.is_primary():
    workdir.finish_stage(folder)
  places.barrier(f"{stage} is complete")


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
  steps = sorted(found.snapshots)
  moved = np.stack([found.snapshots[step][chosen] for step in steps])
  workdir.write_arrays(folder / "snapshots.npz", step=np.array(steps), directions=moved)
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
  if this.generator and generate.on_the_fly(config.generate):
    stream = generate.split_key(this.key("generate"), "train")
    begin = train.from_generator(config, this.generator, _directions(this), stream)
  else:
    sources = list(this.sources("train").values())
    begin = train.from_mixture(config.train, sources, this.weights(), key)
  train.train(config.train, begin, _validation(this), key, folder)
  _log_curves(this, "train", folder)


def _validation(this: Run) -> Callable[[Segmenter], dict[str, float]]:
  """Scores a segmenter on the validation splits of all data sets together."""
  sources = this.sources("validation").values()
  return lambda segmenter: evaluate.evaluate(
    segmenter, itertools.chain.from_iterable(map(_own_pairs, sources))
  )


def _own_pairs(source: Sequence[Any]) -> Iterator[evaluate.Pair]:
  """This process's share of a split."""
  return shards.pairs(source, parallel.own_numbers(len(source)))


def _log_curves(this: Run, name: str, folder: Path) -> None:
  if parallel.is_primary():
    for curve, history in workdir.read_json(folder / "history.json").items():
      this.events.curves(f"{name}/{curve.lower()}", history)


def _adapt(this: Run, folder: Path) -> None:
  sources = list(this.sources("train").values())
  before = Segmenter.restore(this.workdir, adapted=False)
  adaptation.adapt(
    this.config,
    before,
    (this.pictures.count, this.pictures.read),
    sources,
    this.weights(),
    _validation(this),
    this.key("adapt"),
    folder,
  )
  for made in sorted(folder.glob("round-*")):
    _log_curves(this, f"adapt/{made.name}", made)


def _evaluate(this: Run, folder: Path) -> None:
  segmenters = {"": Segmenter.restore(this.workdir)}
  if this.pictures:
    segmenters[evaluate.BEFORE] = Segmenter.restore(this.workdir, adapted=False)
  held_out = this.sources("test")
  scores = {
    name + suffix: evaluate.evaluate(segmenter, _own_pairs(pairs), **_evaluation(this.config))
    for name, pairs in held_out.items()
    for suffix, segmenter in segmenters.items()
  }
  real, beside = _evaluate_real(this.config, segmenters, evaluate.data_sets(this.config))
  scores |= real
  _write_scores(scores, beside, this.config, this.workdir)
  if parallel.is_primary():
    this.events.scalars(
      {f"evaluate/{name}/{metric}": x for name, row in scores.items() for metric, x in row.items()}
    )


def _evaluate_real(
  config: ml_collections.ConfigDict,
  segmenters: dict[str, Segmenter],
  data_sets: dict[str, Collection[evaluate.Pair]],
) -> tuple[Scores, dict[str, Scores]]:
  """Returns the scores, and for each data set those of the answers that look at no picture."""
  scores, beside = {}, {}
  for name, pairs in data_sets.items():
    for suffix, segmenter in segmenters.items():
      counted = progress.counted(f"evaluate {name}{suffix}", pairs)
      # What looks at no picture says the same whichever segmenter stands beside it.
      others = {} if name in beside else baselines.BASELINES
      found = evaluate.compare(segmenter, counted, **_evaluation(config), beside=others)
      scores[name + suffix] = found.pop(evaluate.SEGMENTER)
      beside.setdefault(name, found)
  return scores, beside


def _evaluation(config: ml_collections.ConfigDict) -> dict[str, Any]:
  settings = config.evaluate
  return {
    "batch_size": settings.batch_size,
    "refine": settings.refine,
    "with_saliency": settings.saliency,
    "average": settings.average,
  }


def _write_scores(
  scores: Scores,
  beside: dict[str, Scores],
  config: ml_collections.ConfigDict,
  directory: Path,
) -> None:
  """Prints the table of all data sets and saves it as JSON, Markdown and text, on one process."""
  if not parallel.is_primary():
    return
  reference = config.evaluate.reference.to_dict()
  workdir.write_json(directory / "metrics.json", scores)
  workdir.write_json(directory / "baselines.json", beside)
  for style, suffix in (("markdown", "md"), ("text", "txt")):
    table = tables.metrics_table(scores, reference, style, beside)
    workdir.write_bytes(directory / f"metrics.{suffix}", (table + "\n").encode())
  print(table)


def _report(this: Run, folder: Path) -> None:
  settings = this.config.report
  listed = contents.find_pictures(settings.pictures)
  found = contents.collect(this.workdir, listed, settings.samples)
  report.write(found, this.workdir / "report.html")
  print(f"report: {places.in_urls(str(this.workdir / 'report.html'))}")


STAGES: dict[str, Callable[[Run, Path], None]] = dict(
  zip(experiment.STAGES, (_search, _generate, _train, _adapt, _evaluate, _report), strict=True)
)
