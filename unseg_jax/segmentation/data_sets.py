"""Finds the finished runs whose synthetic pairs train a segmenter: `config.train.data_sets`."""

import collections
import dataclasses
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unseg_jax.artifacts import stage_records
from unseg_jax.errors import InvalidValue
from unseg_jax.storage import places, whole_files
from unseg_jax.synthesis import shards


@dataclasses.dataclass(frozen=True)
class DataSet:
  """The data set of a finished run.

  Attributes:
    name: the name of the run, followed by its number in the list if several runs share the name.
    folder: the folder of the shards.
    weight: its share of the training pairs, relative to the other weights.
    sha256: its `fingerprint`.
  """

  name: str
  folder: Path
  weight: float
  sha256: str


def find(listed: Sequence[tuple[str, float]]) -> list[DataSet]:
  """Finds the data sets listed in `config.train.data_sets`.

  Args:
    listed: (workdir, weight) of each finished run; the workdir is a folder or a URL.

  Raises:
    FileNotFoundError: a run is missing, or its data set is incomplete or has no training split.
    ValueError: a weight is not positive and finite, or a run is listed twice.
  """
  directories = [places.local(run) for run, _ in listed]
  for (run, weight), directory in zip(listed, directories, strict=True):
    if not 0 < weight < math.inf:
      raise InvalidValue(f"config.train.data_sets: {run} has the weight {weight}, expected above 0")
    _check_complete(directory)
  counts = collections.Counter(directory.resolve() for directory in directories)
  if twice := [str(directory) for directory, count in counts.items() if count > 1]:
    raise InvalidValue(
      f"config.train.data_sets lists {', '.join(twice)} twice; list it once, with another weight"
    )
  names = [whole_files.read_json(directory / "config.json")["name"] for directory in directories]
  return [
    DataSet(
      name=name if names.count(name) == 1 else f"{name} {number}",
      folder=directory / "generate",
      weight=float(weight),
      sha256=fingerprint(directory / "generate"),
    )
    for number, (name, directory, (_, weight)) in enumerate(
      zip(names, directories, listed, strict=True), start=1
    )
  ]


def _check_complete(directory: Path) -> None:
  hint = "config.train.data_sets lists finished runs, each as (workdir, weight)"
  if not (directory / "config.json").exists():
    raise FileNotFoundError(
      f"{directory} is not the workdir of a run: it has no config.json; {hint}"
    )
  folder = directory / "generate"
  if not stage_records.has_complete_stage(folder):
    raise FileNotFoundError(f"{folder} holds no complete data set; {hint}. Finish that run first.")
  if not shards.is_whole(shards.shard_path(folder, "train", 0)):
    raise FileNotFoundError(
      f"{folder} has no training pairs: that run made them on the fly. Run it again in another "
      "--workdir with --config.generate.num_images.train set to a number."
    )


def settings(data_sets: Sequence[DataSet]) -> dict[str, dict[str, Any]]:
  """Returns the data sets' content and order, but not their location, for stage records."""
  return {
    data_set.name: {
      "number": number,
      "weight": data_set.weight,
      "sha256": data_set.sha256,
    }
    for number, data_set in enumerate(data_sets, start=1)
  }


def fingerprint(folder: Path) -> str:
  """Returns a SHA-256 of the content of a data set, computed from its shards' SHA-256s in order."""
  digest = hashlib.sha256()
  for path in sorted((folder / "counts").glob("*.json")):
    digest.update(f"{path.stem} {whole_files.read_json(path)['sha256']}\n".encode())
  return digest.hexdigest()
