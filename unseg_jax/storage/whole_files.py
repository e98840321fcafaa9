"""Atomic writes of files, in a folder or in the local copy of a bucket's folder."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unseg_jax.array_types import Shaped
from unseg_jax.errors import InvalidValue
from unseg_jax.storage import places, temporary_names


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
  """Yields a temporary path beside `path`; on success it becomes `path`, on failure it goes."""
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = temporary_names.beside(path)
  try:
    yield temporary
    with open(temporary, "rb") as file:
      os.fsync(file.fileno())
    os.replace(temporary, path)
    places.publish(path)
  finally:
    temporary.unlink(missing_ok=True)


def write_bytes(path: Path, contents: bytes) -> None:
  """Writes a file atomically."""
  with whole_file(path) as temporary:
    temporary.write_bytes(contents)


def write_array(path: Path, array: Shaped[np.ndarray, "..."]) -> None:
  """Writes a `.npy` file atomically."""
  with whole_file(path) as temporary, open(temporary, "wb") as file:
    np.save(file, array)


def write_arrays(path: Path, **arrays: Shaped[np.ndarray, "..."]) -> None:
  """Writes named arrays to a `.npz` file atomically."""
  with whole_file(path) as temporary, open(temporary, "wb") as file:
    named: dict[str, Any] = {**arrays}  # One of them could be called like an argument of savez.
    np.savez(file, **named)


def write_json(path: Path, value: Any) -> None:
  """Writes a JSON file atomically."""
  write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
  """Reads JSON; raises a ValueError that names the file if it is damaged."""
  try:
    return json.loads(path.read_text())
  except json.JSONDecodeError as error:
    raise InvalidValue(f"{path} is damaged ({error}); delete it and run again") from error


def identity(paths: Iterable[Path]) -> str:
  """Returns what changes when one of the files does: their places, sizes and times of change."""
  described = []
  for path in paths:
    if path.exists():
      state = path.stat()
      described.append(f"{path} {state.st_ino} {state.st_size} {state.st_mtime_ns}")
  return "\n".join(described)


def sha256(path: str | os.PathLike) -> str:
  """Returns the SHA-256 of a file's bytes, in hexadecimal."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
