"""Records of stages.

Each stage has a folder with its record, `stage.json`. The record contains the settings of the
stage's result, including those of earlier stages, and whether the result is complete.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unseg_jax.artifacts import renamed_settings
from unseg_jax.errors import UserError
from unseg_jax.storage import places, whole_files

RECORD = "stage.json"


class StageMismatch(UserError):
  """A folder contains a result of different settings."""


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Flattens nested settings to a dict with dotted keys and JSON-compatible values."""
  flat: dict[str, Any] = {}
  for key, value in settings.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[f"{prefix}{key}"] = json.loads(json.dumps(value))
  return flat


def left_out(config: Mapping[str, Any]) -> list[str]:
  """The stages that an experiment's config leaves out."""
  names = [] if config.get("adapt", {}).get("images") else ["adapt"]
  return names + (["search", "generate"] if config.get("train", {}).get("data_sets") else [])


def is_complete(folder: Path, settings: Mapping[str, Any]) -> bool:
  """Whether a folder contains the complete result of these settings.

  Args:
    folder: the stage's folder.
    settings: all settings that determine the result, nested.

  Raises:
    StageMismatch: the folder contains a complete or partial result of different settings.
  """
  if not (folder / RECORD).exists():
    return False
  record = _read(folder)
  if record["settings"] != flatten(settings):
    raise StageMismatch(_differences(folder, record["settings"], flatten(settings)))
  return record["complete"]


def recorded_settings(folder: Path) -> dict[str, Any]:
  """Returns the flat settings of a stage's complete or partial result; empty if it has none."""
  return _read(folder)["settings"] if (folder / RECORD).exists() else {}


def _read(folder: Path) -> dict[str, Any]:
  record = whole_files.read_json(folder / RECORD)
  return record | {"settings": renamed_settings.in_record(record["settings"])}


def begin_stage(folder: Path, settings: Mapping[str, Any]) -> None:
  """Records these settings in a stage's folder and marks its result as incomplete."""
  whole_files.write_json(folder / RECORD, {"complete": False, "settings": flatten(settings)})


def finish_stage(folder: Path) -> None:
  """Marks a stage's result as complete."""
  record = whole_files.read_json(folder / RECORD)
  whole_files.write_json(folder / RECORD, record | {"complete": True})


def reopen_stage(folder: Path) -> None:
  """Marks a stage's result as incomplete, so that the next run continues it."""
  record = whole_files.read_json(folder / RECORD)
  whole_files.write_json(folder / RECORD, record | {"complete": False})


def restart_stage_if_changed(folder: Path, settings: Mapping[str, Any]) -> None:
  """Removes the folder of a result that is quick to recompute if its settings differ."""
  if (folder / RECORD).exists() and _read(folder)["settings"] != flatten(settings):
    shutil.rmtree(folder)
    places.remove(folder)


def has_complete_stage(folder: Path) -> bool:
  """Whether a folder contains a stage's complete result of any settings."""
  return (folder / RECORD).exists() and whole_files.read_json(folder / RECORD)["complete"]


def require_stage(folder: Path, stage: str) -> None:
  """Raises a FileNotFoundError unless the folder contains a stage's complete result."""
  if not has_complete_stage(folder):
    raise FileNotFoundError(
      f"{folder} holds no complete result of the stage {stage!r}, which a requested stage needs; "
      f"add {stage} to --stages"
    )


def require_absent(folder: Path, why: str) -> None:
  """Raises a StageMismatch if the folder contains the result of a stage that the config omits."""
  if (folder / RECORD).exists():
    raise StageMismatch(
      f"{folder} holds a result, but {why}. Use the setting of the run that made it, use another "
      "--workdir, or delete that folder. Nothing was changed."
    )


def _differences(folder: Path, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> str:
  lines = [
    f"  {key}: {recorded.get(key, 'absent')!r} recorded, {now.get(key, 'absent')!r} now"
    for key in sorted(recorded.keys() | now.keys())
    if recorded.get(key) != now.get(key)
  ]
  return (
    f"{folder} holds a result of different settings:\n"
    + "\n".join(lines)
    + "\nUse another --workdir, undo the change, or delete that folder and those of later stages. "
    "Nothing was changed."
  )
