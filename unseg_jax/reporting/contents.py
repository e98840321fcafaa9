"""The contents of a report as plain data, and how they are read from a run's workdir."""

import dataclasses
import importlib.resources
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unseg_jax.errors import InvalidValue
from unseg_jax.images import reading
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.reporting import under_way
from unseg_jax.reporting.charts import Columns
from unseg_jax.reporting.tables import Metrics
from unseg_jax.storage import places, whole_files
from unseg_jax.synthesis import shards


@dataclasses.dataclass(frozen=True)
class Prediction:
  """An image and the segmenter's prediction for it.

  Attributes:
    name: of the image, such as its file name.
    image: uint8 [H, W, 3].
    probability: float32 [H, W] in [0, 1], the probability that a pixel is foreground.
  """

  name: str
  image: np.ndarray
  probability: np.ndarray


@dataclasses.dataclass(frozen=True)
class Restart:
  """One of several searches for a direction, each from its own random start.

  Attributes:
    name: such as its number.
    chosen: whether the run uses its direction.
    scores: the label-free scores that rank the searches, by name.
    picture: its direction, as `ReportContents.direction_picture`; may be empty.
  """

  name: str
  chosen: bool
  scores: Mapping[str, float]
  picture: np.ndarray


@dataclasses.dataclass(frozen=True)
class ReportContents:
  """The contents of a report. Every part but the title may be empty; the page then says so.

  Attributes:
    title: the page's title.
    config: the run's settings, a plain dict, possibly nested.
    direction_picture: uint8 [H, W, 3]; each row shows one latent at shifts 0, 2, 4, 6, and its
      mask.
    samples: synthetic pairs, uint8 [H, W, 3] images and bool [H, W] masks.
    filters: the share in [0, 1] of the candidates that each filter, and "all" of them, accepts.
    curves: by stage ("Search", "Training"), the columns of its log: "step", others as long.
    metrics: by data set, the segmenter's metrics by name ("accuracy", "iou", ...).
    predictions: the segmenter's predictions; their names are unique.
    restarts: the searches among which the run chose; empty after a single search.
    animation: an animated WebP of latents that move along the direction.
    reference: by data set, published metrics by name; data sets may be missing.
    baselines: by data set, the metrics of each baseline that ignores the image; data sets may be
      missing.
    image_counts: the number of images of each data set; data sets may be missing.
    stages: the state of each stage.
    read_at: when the workdir was read, in seconds since 1970.
    workdir: the folder or URL that the page names in its commands.
  """

  title: str
  config: Mapping[str, Any]
  direction_picture: np.ndarray
  samples: Sequence[tuple[np.ndarray, np.ndarray]]
  filters: Mapping[str, float]
  curves: Mapping[str, Columns]
  metrics: Metrics
  predictions: Sequence[Prediction]
  restarts: Sequence[Restart] = ()
  animation: bytes = b""
  reference: Metrics = dataclasses.field(default_factory=dict)
  baselines: Mapping[str, Metrics] = dataclasses.field(default_factory=dict)
  image_counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
  stages: Sequence[under_way.Stage] = ()
  read_at: float = 0.0
  workdir: str = "WORKDIR"


def collect(directory: Path, picture_paths: Sequence[Path], samples: int) -> ReportContents:
  """Reads a run's workdir, and segments images with its segmenter.

  Args:
    directory: the workdir. What it lacks stays empty.
    picture_paths: the images to segment, if the run trained a segmenter. A prediction has the name
      of the image without its suffix, or its path if another image has the same name.
    samples: the largest number of synthetic pairs to read.

  Raises:
    FileNotFoundError, ValueError: the folder is not a workdir, or a file is damaged.
  """
  config = read_config(directory)
  search, generate, train = (directory / stage for stage in ("search", "generate", "train"))
  searched, trained = (_json_or_empty(folder / "history.json") for folder in (search, train))
  searched = searched or under_way.search_curves(search)
  animation = search / "direction.webp"
  return ReportContents(
    title=config["name"],
    config=config,
    direction_picture=_picture_or_empty(search / "direction.png"),
    samples=_read_samples(generate, samples),
    filters=_json_or_empty(generate / "filters.json").get("rates") or under_way.filters(generate),
    curves={name: log for name, log in ({"Search": searched} | trained).items() if log},
    metrics=_json_or_empty(directory / "metrics.json"),
    predictions=_predict(directory, picture_paths),
    restarts=_read_restarts(search),
    animation=animation.read_bytes() if animation.exists() else b"",
    reference=config["evaluate"]["reference"],
    baselines=_json_or_empty(directory / "baselines.json"),
    image_counts=_json_or_empty(directory / "image_counts.json"),
    stages=under_way.stages(directory, config),
    read_at=time.time(),
    workdir=places.in_urls(str(directory)),
  )


def read_config(directory: Path) -> dict[str, Any]:
  """Reads the settings of a run, nested as in `default_config.py`.

  Raises:
    FileNotFoundError: the folder has no config.json, so it is not a workdir.
    ValueError: config.json is damaged, or does not hold a run's settings.
  """
  path = directory / "config.json"
  if not path.exists():
    raise FileNotFoundError(
      f"{directory} is not the workdir of a run: it has no config.json. Expected the --workdir of "
      "`python -m unseg_jax.main`; by default that is runs/NAME."
    )
  config = whole_files.read_json(path)
  needed = {"name": str, "evaluate": dict, "report": dict}
  if not isinstance(config, dict) or not all(
    isinstance(config.get(key), kind) for key, kind in needed.items()
  ):
    raise InvalidValue(
      f"{path} does not hold the settings of a run: expected an object with {', '.join(needed)}. "
      "Start the run again with this --workdir: that writes the file again."
    )
  return config


def find_pictures(names: Sequence[str]) -> list[Path]:
  """Finds the images that `config.report.pictures` lists.

  Args:
    names: files, folders, their URLs, globs, or `example:NAME` for an image of the package.

  Raises:
    FileNotFoundError: a name matches no image.
  """
  examples = Path(str(importlib.resources.files("unseg_jax"))) / "pretrained" / "example"
  paths = []
  for name in names:
    example = name.removeprefix("example:")
    paths += reading.find_pictures(places.local(name) if example == name else examples / example)
  return paths


def configured_pictures(directory: Path) -> list[Path]:
  """Finds the images that a run's config.json lists for its report.

  Raises:
    FileNotFoundError, ValueError: the folder is not a workdir, or an image is missing.
  """
  names = read_config(directory)["report"]["pictures"]
  try:
    return find_pictures(names)
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f"report.pictures of {directory / 'config.json'}: {error} Relative names start at the "
      "current folder. Change to the folder in which the run was started, or correct the names in "
      "that file."
    ) from error


def _json_or_empty(path: Path) -> Any:
  return whole_files.read_json(path) if path.exists() else {}


def _picture_or_empty(path: Path) -> np.ndarray:
  return reading.read_picture(path) if path.exists() else np.zeros((0, 0, 3), np.uint8)


def _read_samples(folder: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
  try:
    held_out = shards.read(folder, "test")
  except FileNotFoundError:
    held_out = shards.read_whole(folder)
  return list(itertools.islice(shards.pairs(held_out), count))


def _read_restarts(folder: Path) -> list[Restart]:
  restarts = []
  for record in _json_or_empty(folder / "restarts.json"):
    number, chosen = record.pop("restart"), record.pop("chosen")
    picture = _picture_or_empty(folder / f"restart-{number}.png")
    restarts.append(Restart(str(number), chosen, record, picture))
  return restarts


def _predict(directory: Path, picture_paths: Sequence[Path]) -> list[Prediction]:
  if not picture_paths:
    return []
  try:
    segmenter = Segmenter.restore(directory)
  except FileNotFoundError:
    return []
  stems = [path.stem for path in picture_paths]
  images = (reading.read_picture(path) for path in picture_paths)
  return [
    Prediction(path.stem if stems.count(path.stem) == 1 else str(path), image, segmenter(image))
    for path, image in zip(picture_paths, images, strict=True)
  ]
