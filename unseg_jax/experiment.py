"""What a run is: its config checked, and what that names opened."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import ml_collections

from unseg_jax import generators
from unseg_jax.adaptation import adapt
from unseg_jax.direction import search
from unseg_jax.evaluation import evaluate, saliency, unlabelled
from unseg_jax.inference import refinement
from unseg_jax.reporting import contents
from unseg_jax.runtime import parallel
from unseg_jax.runtime.tracking import EventWriter
from unseg_jax.segmentation import data_sets, step
from unseg_jax.storage import places
from unseg_jax.synthesis import generate, shards
from unseg_jax.synthesis.records import Split

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
    workers: processes that encode and decode pairs; 0: threads of this process.
  """

  config: ml_collections.ConfigDict
  workdir: Path
  generator: generators.Generator | None
  data_sets: Sequence[data_sets.DataSet]
  pictures: unlabelled.Pictures | None
  workers: int = 0

  def events(self, stage: str) -> EventWriter:
    """What a stage writes for TensorBoard, on one process; the others' writers are silent."""
    return EventWriter(self.workdir / "events" / stage if parallel.is_primary() else None, stage)

  def sources(self, split: str) -> dict[str, Split]:
    """Opens a split of every data set that the segmenter learns from, by its row in the table."""
    if not self.data_sets:
      return {evaluate.SYNTHETIC: shards.read(self.workdir / "generate", split)}
    return {
      f"{evaluate.SYNTHETIC} {data_set.name}": shards.read(data_set.folder, split)
      for data_set in self.data_sets
    }

  def weights(self) -> list[float]:
    """The weights of these data sets, in their order."""
    return [data_set.weight for data_set in self.data_sets] or [1.0]


def open_run(config: ml_collections.ConfigDict, directory: Path, worker_count: int = 0) -> Run:
  """Opens what a config names, and raises at once for what would fail late.

  Args:
    config: the resolved config.
    directory: the workdir.
    worker_count: processes that encode and decode pairs.

  Raises:
    ValueError, FileNotFoundError, ImportError: a setting makes no sense, or a file, a folder or a
      package is missing.
  """
  others, generator, pictures = data_sets.find(config.train.data_sets), None, None
  if not others:
    _check_generator(config)
    search.check_config(config.search)
    generate.check_config(config.generate, config.search.directions)
  step.check_config(config.train)
  if config.adapt.images:
    adapt.check_config(config.adapt)
    if not others and generate.on_the_fly(config.generate):
      raise ValueError(
        f"config.adapt.images={config.adapt.images}: the adaptation needs synthetic pairs on disk; "
        "set config.generate.num_images.train to how many"
      )
    pictures = unlabelled.open_pictures(config.adapt.images, config.data_root)
  check_evaluation(config)
  contents.find_pictures(config.report.pictures)
  if not others:
    generator = generators.resolve(config.generator, config.generator_options.to_dict())
  return Run(config, directory, generator, others, pictures, worker_count)


def _check_generator(config: ml_collections.ConfigDict) -> None:
  if not config.generator:
    raise ValueError(
      "config.generator is empty: expected a converted file, pretrained:NAME or "
      "package.module:function; or list finished runs in config.train.data_sets to train on theirs"
    )
  is_missing = ":" not in config.generator and not places.path(config.generator).is_file()
  if config.convert_command and is_missing:
    raise FileNotFoundError(
      f"no generator at config.generator={config.generator}; make it with\n"
      f"  {config.convert_command}"
    )


def check_evaluation(config: ml_collections.ConfigDict) -> dict[str, evaluate.Pairs]:
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
