"""What a run leaves on disk: files that appear whole or not at all, and stages that remember.

Each stage keeps a folder with a `stage.json`: the settings that made its result, those of the
stages before it included, and whether the result is complete.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unseg_jax.runtime import places

RECORD = "stage.json"


class StageMismatch(Exception):
  """A folder holds a result of other settings than those asked for."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
  """Yields a temporary path beside `path`; on success it becomes `path`, on failure it goes."""
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(path.name + ".incomplete")
  try:
    yield temporary
    with open(temporary, "rb") as file:
      os.fsync(file.fileno())
    os.replace(temporary, path)
    places.publish(path)
  finally:
    temporary.unlink(missing_ok=True)


def write_bytes(path: Path, contents: bytes) -> None:
  """Writes a file that is there whole or not at all."""
  with whole_file(path) as temporary:
    temporary.write_bytes(contents)


def write_array(path: Path, array: np.ndarray) -> None:
  """Writes a `.npy` file that is there whole or not at all."""
  with whole_file(path) as temporary, open(temporary, "wb") as file:
    np.save(file, array)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
  """Writes a `.npz` file, of arrays by name, that is there whole or not at all."""
  with whole_file(path) as temporary, open(temporary, "wb") as file:
    np.savez(file, **arrays)


def write_json(path: Path, value: Any) -> None:
  """Writes JSON that is there whole or not at all."""
  write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
  """Reads JSON; raises a ValueError that names the file if it is damaged."""
  try:
    return json.loads(path.read_text())
  except json.JSONDecodeError as error:
    raise ValueError(f"{path} is damaged ({error}); delete it and run again") from error


def sha256(path: str | os.PathLike) -> str:
  """Returns the SHA-256 of a file's bytes, in hexadecimal."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns nested settings as one dict with dotted keys, in the form in which JSON keeps them."""
  flat = {}
  for key, value in settings.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[f"{prefix}{key}"] = json.loads(json.dumps(value))
  return flat


def is_complete(folder: Path, settings: Mapping[str, Any]) -> bool:
  """Whether a folder holds the complete result of these settings.

  Args:
    folder: the stage's folder.
    settings: everything that determines the result, nested.

  Raises:
    StageMismatch: the folder holds a result, whole or partial, of other settings.
  """
  record = folder / RECORD
  if not record.exists():
    return False
  found = read_json(record)
  if found["settings"] != flatten(settings):
    raise StageMismatch(_differences(folder, found["settings"], flatten(settings)))
  return found["complete"]


def begin_stage(folder: Path, settings: Mapping[str, Any]) -> None:
  """Claims a folder for a result of these settings."""
  write_json(folder / RECORD, {"complete": False, "settings": flatten(settings)})


def finish_stage(folder: Path) -> None:
  """Marks a stage's result as complete."""
  record = read_json(folder / RECORD)
  write_json(folder / RECORD, record | {"complete": True})


def reopen_stage(folder: Path) -> None:
  """Marks a stage's result as incomplete, to be continued."""
  record = read_json(folder / RECORD)
  write_json(folder / RECORD, record | {"complete": False})


def restart_stage_if_changed(folder: Path, settings: Mapping[str, Any]) -> None:
  """Removes a folder of other settings' result: for results that are quick to make."""
  record = folder / RECORD
  if record.exists() and read_json(record)["settings"] != flatten(settings):
    shutil.rmtree(folder)
    places.remove(folder)


def has_complete_stage(folder: Path) -> bool:
  """Whether a folder holds a stage's complete result, whatever the settings."""
  return (folder / RECORD).exists() and read_json(folder / RECORD)["complete"]


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


def _differences(folder: Path, there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
  lines = [
    f"  {key}: {there.get(key, 'absent')!r} there, {now.get(key, 'absent')!r} now"
    for key in sorted(there.keys() | now.keys())
    if there.get(key) != now.get(key)
  ]
  return (
    f"{folder} holds a result of other settings:\n"
    + "\n".join(lines)
    + "\nUse another --workdir, or undo the change, or delete that folder and those of the stages "
    "after it. Nothing was changed."
  )
