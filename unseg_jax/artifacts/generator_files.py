"""Generator files: one safetensors file with a converted generator's weights and configuration.

Arrays of the nested variables are stored under their `/`-joined paths, such as
`params/project/kernel`. The metadata contains the format version, the architecture's name, its
config as JSON, and the SHA-256 of the converted checkpoint.
"""

import dataclasses
import json
import os
from typing import Any

import flax.traverse_util
import numpy as np
import safetensors
import safetensors.numpy

from unseg_jax.errors import InvalidValue
from unseg_jax.storage import places, whole_files

_FORMAT_VERSION = "1"
_METADATA_KEYS = ("architecture", "config", "format_version", "source_sha256")
_CONVERT_AGAIN = (
  "convert the original checkpoint again with checkpoints_convert.convert, or download it again"
)


@dataclasses.dataclass(frozen=True)
class GeneratorFile:
  """The contents of a generator file.

  Attributes:
    architecture: name of the generator's architecture, such as `dcgan`.
    config: the architecture's hyper-parameters, serialisable as JSON.
    variables: nested dict of arrays, such as `{'params': {'project': {'kernel': ...}}}`.
    source_sha256: SHA-256 of the converted checkpoint, in hexadecimal.
  """

  architecture: str
  config: dict[str, Any]
  variables: dict[str, Any]
  source_sha256: str


def save_generator(path: str | os.PathLike, generator_file: GeneratorFile) -> None:
  """Writes a generator file atomically. Equal contents give equal bytes.

  Args:
    path: the file to write, by convention `*.safetensors`. A missing folder is created; an existing
      file is replaced.
    generator_file: the contents.

  Raises:
    ValueError: it has no arrays, or an array contains NaN or infinity.
    OSError: the file cannot be written.
  """
  # safetensors ignores strides, so transposed views are copied into C order first.
  arrays = {
    name: np.asarray(array, order="C")
    for name, array in flax.traverse_util.flatten_dict(generator_file.variables, sep="/").items()
  }
  if problem := _find_problem(arrays):
    raise InvalidValue(
      f"cannot save a generator to {path}: {problem}; check the original checkpoint"
    )
  metadata = {
    "architecture": generator_file.architecture,
    "config": json.dumps(generator_file.config, sort_keys=True),
    "format_version": _FORMAT_VERSION,
    "source_sha256": generator_file.source_sha256,
  }
  whole_files.write_bytes(places.path(path), _sort_header(safetensors.numpy.save(arrays, metadata)))


def read_generator(path: str | os.PathLike) -> GeneratorFile:
  """Reads a file that `save_generator` wrote.

  Args:
    path: the generator file.

  Returns:
    Its contents, with the variables as NumPy arrays.

  Raises:
    FileNotFoundError: the file does not exist.
    ValueError: the file is not a safetensors file, is truncated, lacks metadata, has another format
      version, or contains NaN or infinity.
  """
  path = places.path(path)
  if not path.is_file():
    raise FileNotFoundError(
      f"no generator file at {path}: expected a .safetensors file; create one from a published "
      "checkpoint with `python -m checkpoints_convert.convert`"
    )
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      metadata = file.metadata() or {}
      arrays = {name: file.get_tensor(name) for name in file.keys()}
  except safetensors.SafetensorError as error:
    raise InvalidValue(
      f"{path} is not a complete safetensors file ({error}): expected a generator file; "
      f"{_CONVERT_AGAIN}"
    ) from error

  if missing := [key for key in _METADATA_KEYS if key not in metadata]:
    raise InvalidValue(
      f"{path} is a safetensors file, but not a generator file: its metadata lacks "
      f"{', '.join(missing)}; {_CONVERT_AGAIN}"
    )
  if metadata["format_version"] != _FORMAT_VERSION:
    raise InvalidValue(
      f"{path} has format_version {metadata['format_version']!r}, expected {_FORMAT_VERSION!r}: "
      "upgrade unseg-jax, or convert the original checkpoint with this version"
    )
  try:
    config = json.loads(metadata["config"])
  except json.JSONDecodeError:
    config = None
  if not isinstance(config, dict):
    raise InvalidValue(
      f"{path} has the config {metadata['config']!r} in its metadata, expected a JSON object; "
      f"{_CONVERT_AGAIN}"
    )
  if problem := _find_problem(arrays):
    raise InvalidValue(f"{path} is damaged: {problem}; {_CONVERT_AGAIN}")
  return GeneratorFile(
    architecture=metadata["architecture"],
    config=config,
    variables=flax.traverse_util.unflatten_dict(arrays, sep="/"),
    source_sha256=metadata["source_sha256"],
  )


def architecture(path: str | os.PathLike) -> str | None:
  """Reads the name of the architecture from a file's metadata, without its arrays.

  Returns:
    A name such as `unet` or `dcgan`; None if the file is not a safetensors file of this package.
  """
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      return (file.metadata() or {}).get("architecture")
  except safetensors.SafetensorError:
    return None


def _find_problem(arrays: dict[str, np.ndarray]) -> str | None:
  """Returns why these arrays are not a valid generator, or None if they are."""
  if not arrays:
    return "no arrays, expected at least one"
  for name, array in arrays.items():
    if not np.isfinite(array).all():
      return f"the array {name} holds NaN or infinity, expected finite numbers"
  return None


def _sort_header(data: bytes) -> bytes:
  """Sorts the header of safetensors bytes, whose metadata safetensors writes in random order."""
  length = int.from_bytes(data[:8], "little")
  header = json.loads(data[8 : 8 + length])
  text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)  # The format aligns arrays to 8 bytes.
  return len(text).to_bytes(8, "little") + text + data[8 + length :]
