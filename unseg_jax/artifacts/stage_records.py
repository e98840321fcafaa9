"""Records of stages: the settings that made a result, and whether it is complete.

Each stage keeps a folder with its record, `stage.json`: the settings that made its result,
including those of the stages before it, and whether the result is complete.
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
  """A folder holds a result of other settings than those asked for."""


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns nested settings as one dict with dotted keys, in the form in which JSON keeps them."""
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
  """Whether a folder holds the complete result of these settings.

  Args:
    folder: the stage's folder.
    settings: everything that determines the result, nested.

  Raises:
    StageMismatch: the folder holds a complete or partial result of other settings.
  """
  if not (folder / RECORD).exists():
    return False
  record = _read(folder)
  if record["settings"] != flatten(settings):
    raise StageMismatch(_differences(folder, record["settings"], flatten(settings)))
  return record["complete"]


def recorded_settings(folder: Path) -> dict[str, Any]:
  """The flat settings of a stage's complete or partial result; empty where there is none."""
  return _read(folder)["settings"] if (folder / RECORD).exists() else {}


def _read(folder: Path) -> dict[str, Any]:
  record = whole_files.read_json(folder / RECORD)
  return record | {"settings": renamed_settings.in_record(record["settings"])}


def begin_stage(folder: Path, settings: Mapping[str, Any]) -> None:
  """Claims a folder for a result of these settings."""
  whole_files.write_json(folder / RECORD, {"complete": False, "settings": flatten(settings)})


def finish_stage(folder: Path) -> None:
  """Marks a stage's result as complete."""
  record = whole_files.read_json(folder / RECORD)
  whole_files.write_json(folder / RECORD, record | {"complete": True})


def reopen_stage(folder: Path) -> None:
  """Marks a stage's result as incomplete, to be continued."""
  record = whole_files.read_json(folder / RECORD)
  whole_files.write_json(folder / RECORD, record | {"complete": False})


def restart_stage_if_changed(folder: Path, settings: Mapping[str, Any]) -> None:
  """Removes a folder whose result other settings made: for results that are quick to make."""
  if (folder / RECORD).exists() and _read(folder)["settings"] != flatten(settings):
    shutil.rmtree(folder)
    places.remove(folder)


def has_complete_stage(folder: Path) -> bool:
  """Whether a folder holds a stage's complete result, whatever the settings."""
  return (folder / RECORD).exists() and whole_files.read_json(folder / RECORD)["complete"]


def require_stage(folder: Path, stage: str) -> None:
  """Raises a FileNotFoundError unless the folder holds a stage's complete result."""
  if not has_complete_stage(folder):
    raise FileNotFoundError(
      f"{folder} holds no complete result of the stage {stage!r}, which this one builds on; "
      f"add {stage} to --stages"
    )


def require_absent(folder: Path, why: str) -> None:
  """Raises a StageMismatch if the folder holds a stage's result, which the config leaves out."""
  if (folder / RECORD).exists():
    raise StageMismatch(
      f"{folder} holds a result, but {why}. Set it as in the run that made that, use another "
      "--workdir, or delete that folder. Nothing was changed."
    )


def _differences(folder: Path, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> str:
  lines = [
    f"  {key}: {recorded.get(key, 'absent')!r} there, {now.get(key, 'absent')!r} now"
    for key in sorted(recorded.keys() | now.keys())
    if recorded.get(key) != now.get(key)
  ]
  return (
    f"{folder} holds a result of other settings:\n"
    + "\n".join(lines)
    + "\nUse another --workdir, or undo the change, or delete that folder and those of the stages "
    "after it. Nothing was changed."
  )
