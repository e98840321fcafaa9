"""Atomic writing of files, in a local folder or in the copy of a remote one."""

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
  """Yields a temporary path; renames it to `path` on success and removes it on failure."""
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
  """Writes a `.npz` file of named arrays atomically."""
  with whole_file(path) as temporary, open(temporary, "wb") as file:
    named: dict[str, Any] = {**arrays}  # For mypy: a name could be that of an argument of savez.
    np.savez(file, **named)


def write_json(path: Path, value: Any) -> None:
  """Writes a JSON file atomically."""
  write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def read_json(path: Path) -> Any:
  """Reads a JSON file; raises a ValueError that names the file if it is damaged."""
  try:
    return json.loads(path.read_text())
  except json.JSONDecodeError as error:
    raise InvalidValue(f"{path} is damaged ({error}); delete it and run again") from error


def identity(paths: Iterable[Path]) -> str:
  """Returns a text that changes with any of the files: paths, sizes and modification times."""
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
