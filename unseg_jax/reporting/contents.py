"""What a report shows, as plain data, and how it is read from a run's workdir."""

import dataclasses
import importlib.resources
import itertools
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
  """A picture and what the segmenter says of it.

  Attributes:
    name: what to call the picture, such as its file name.
    image: uint8 [H, W, 3].
    probability: float32 [H, W] in [0, 1], how likely each pixel is foreground.
  """

  name: str
  image: np.ndarray
  probability: np.ndarray


@dataclasses.dataclass(frozen=True)
class Restart:
  """One of several searches for a direction, each from a start of its own.

  Attributes:
    name: what to call it, such as its number.
    chosen: whether its direction is the one that the run uses.
    scores: numbers that rank the searches without labels, by name.
    picture: its direction, as `ReportContents.direction_picture`; may be empty.
  """

  name: str
  chosen: bool
  scores: Mapping[str, float]
  picture: np.ndarray


@dataclasses.dataclass(frozen=True)
class ReportContents:
  """What a report shows; every part but the title may be empty, and the page then says so.

  Attributes:
    title: the page's title.
    config: the run's settings, a plain dict, nested as need be.
    direction_picture: uint8 [H, W, 3], in each row one latent at shifts 0, 2, 4, 6, and its mask.
    samples: synthetic pairs, uint8 [H, W, 3] images and bool [H, W] masks.
    filters: the share in [0, 1] of the candidates that each filter, and "all" of them, accepts.
    curves: for each stage ("Search", "Training") the columns of its log: "step", others as long.
    metrics: for each data set its metrics by name ("accuracy", "iou", "f_beta", "f_max").
    predictions: pictures that the segmenter was tried on, each by a name of its own.
    restarts: the searches that the direction was chosen from; empty after a single search.
    animation: an animated WebP of latents that move along the direction.
    reference: for any of the data sets the published metrics by name.
    baselines: for any of the data sets the metrics of answers that look at no picture, by name.
    under_way: a sentence for each stage that was begun and is not complete.
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
  under_way: Sequence[str] = ()


def collect(directory: Path, picture_paths: Sequence[Path], samples: int) -> ReportContents:
  """Reads what a run left in its workdir, and tries its segmenter on pictures.

  Args:
    directory: the workdir; parts of stages that it lacks are left empty.
    picture_paths: what to try the segmenter on, if the run trained one. A prediction is called by
      the picture's stem, or by its path where another picture has the same stem.
    samples: how many synthetic pairs to take, at most.

  Raises:
    FileNotFoundError, ValueError: this is no workdir, or one of its files or a picture is damaged.
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
    under_way=under_way.describe(directory, config),
  )


def read_config(directory: Path) -> dict[str, Any]:
  """Reads the settings of a run, nested as in `default_config.py`.

  Raises:
    FileNotFoundError: the folder is no workdir, as it has no config.json.
    ValueError: that file is damaged, or is not of a run.
  """
  path = directory / "config.json"
  if not path.exists():
    raise FileNotFoundError(
      f"{directory} is not the workdir of a run: it has no config.json. Expected the --workdir of "
      "`python -m unseg_jax.main`, by default runs/NAME."
    )
  config = whole_files.read_json(path)
  needed = {"name": str, "evaluate": dict, "report": dict}
  if not isinstance(config, dict) or not all(
    isinstance(config.get(key), kind) for key, kind in needed.items()
  ):
    raise InvalidValue(
      f"{path} does not hold the settings of a run: expected an object with {', '.join(needed)}. "
      "Run again with this --workdir to write it anew."
    )
  return config


def find_pictures(names: Sequence[str]) -> list[Path]:
  """Finds the pictures that `config.report.pictures` lists.

  Args:
    names: files, folders, their URLs, globs, or `example:NAME` of the examples that the package
      ships.

  Raises:
    FileNotFoundError: a name matches nothing.
  """
  examples = Path(str(importlib.resources.files("unseg_jax"))) / "pretrained" / "example"
  paths = []
  for name in names:
    example = name.removeprefix("example:")
    paths += reading.find_pictures(places.local(name) if example == name else examples / example)
  return paths


def configured_pictures(directory: Path) -> list[Path]:
  """Finds the pictures that a run's config.json lists for its report.

  Raises:
    FileNotFoundError, ValueError: this is no workdir, or the pictures are missing.
  """
  names = read_config(directory)["report"]["pictures"]
  try:
    return find_pictures(names)
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f"report.pictures of {directory / 'config.json'}: {error} Relative names start at the "
      "current folder: go to the one that the run was started in, or correct the names in that "
      "file."
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
