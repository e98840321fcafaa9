"""Reads untrusted PyTorch checkpoints as data only, without executing anything in them."""

import os
import pathlib
import re
from typing import Any

from checkpoints_convert import inert
from unseg_jax.errors import InvalidValue, MissingPackage

# The first release in which no known checkpoint can break out of `weights_only=True`
# (CVE-2025-32434 was fixed in 2.6, CVE-2026-24747 in 2.10).
_SAFE_TORCH = "2.10"
_ZIP = b"PK"  # The first bytes of PyTorch's newer files, which are zip archives.
_NUM_PICKLES = 4  # In the older files: a magic number, a version, system info, the checkpoint.
_EXPANDED = 2**20  # Elements that a tensor may have regardless of its storage size.


def read(path: str | os.PathLike) -> dict:
  """Reads a checkpoint that `torch.save` wrote, in the zip format or the older pickle format.

  Objects of settings, such as Lightning's hyper-parameters, become `inert.Setting`. Their classes
  are neither imported nor called. A name that is only mentioned, such as a class as a dict key,
  becomes a class that cannot be called.

  Args:
    path: the checkpoint, which must hold a dict: a state dict, or a dict of state dicts and
      settings.

  Returns:
    The same nested dict of plain containers with NumPy arrays as tensors (bfloat16 as float32).

  Raises:
    FileNotFoundError: the file does not exist.
    ImportError: PyTorch is missing, or too old to read untrusted files.
    ValueError: the file is truncated, is not such a checkpoint, or requires code to be executed.
  """
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(
      f"no checkpoint file at {path}: expected a file that torch.save wrote; check the path"
    )
  torch = import_torch()
  try:
    stand_ins = [(inert.stand_in(name), name) for name in _find_names(path, torch)]
    with torch.serialization.safe_globals(stand_ins):
      checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    # Inside `try`, because damaged tensors (no storage, unknown layout) only fail here.
    plain = _to_plain(checkpoint, torch, {})
  except inert.Refused as error:
    raise _refusal(path, str(error)) from None
  except Exception as error:  # Parsers raise every kind of exception for damaged files.
    # PyTorch's own message suggests disabling its protection, so it is not repeated.
    if blocked := re.search(r"GLOBAL (\S+)", str(error)):
      raise _refusal(path, blocked[1]) from None
    if "persistent_load of storage" in str(error):  # In older files.
      raise _refusal(path, "a network's own code") from None
    reason = str(error).split(". ")[0].split("\n")[0]
    raise InvalidValue(
      f"{path} is truncated or not a checkpoint that torch.save wrote "
      f"({type(error).__name__}: {reason}): fetch it again and compare its size and checksum with "
      "the published ones"
    ) from None
  if not isinstance(plain, dict):
    raise InvalidValue(
      f"{path} holds a {type(checkpoint).__name__}, expected a dict of tensors: save "
      "`model.state_dict()`"
    )
  return plain


def import_torch() -> Any:
  """Imports PyTorch, or raises an ImportError if it is missing or too old for untrusted files."""
  try:
    import torch
  except ImportError as error:
    raise MissingPackage(
      "PyTorch is needed to read its checkpoints: pip install 'unseg-jax[convert]'"
    ) from error
  if torch.__version__ < _SAFE_TORCH:
    raise MissingPackage(
      f"PyTorch {torch.__version__} can be made to execute code by a checkpoint, expected "
      f"{_SAFE_TORCH} or newer: pip install --upgrade 'unseg-jax[convert]'"
    )
  return torch


def _refusal(path: str | os.PathLike, name: str) -> ValueError:
  return ValueError(
    f"{path} needs {name} to be executed, expected only tensors, plain containers and "
    "settings: nothing was executed, do not trust this file; if it is your own, save only "
    "`model.state_dict()`"
  )


def _find_names(path: str | os.PathLike, torch: Any) -> list[str]:
  """Returns the names in a checkpoint that PyTorch's restricted reader does not support."""
  with open(path, "rb") as file:
    if file.read(2) == _ZIP:
      return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    file.seek(0)
    # Four pickles, of which the last is the checkpoint; the bytes of tensors follow.
    known = torch._weights_only_unpickler._get_allowed_globals()
    found = (torch._weights_only_unpickler.get_globals_in_pkl(file) for _ in range(_NUM_PICKLES))
    return sorted(set().union(*found).difference(known))


def _to_plain(value: Any, torch: Any, done: dict[int, Any]) -> Any:
  """Copies every container once, even if it occurs several times; `done` maps ids to copies."""
  if id(value) in done:
    return done[id(value)]
  if isinstance(value, dict):
    # `value.items()` is unsafe: a file may set attributes of an OrderedDict and hide its methods.
    plain: Any = {key: _to_plain(item, torch, done) for key, item in dict.items(value)}
  elif isinstance(value, (list, tuple)):
    plain = [_to_plain(item, torch, done) for item in value]
  elif isinstance(value, torch.Tensor):
    plain = _to_numpy(value.detach(), torch)
  else:
    return value
  done[id(value)] = plain
  return plain


def _to_numpy(tensor: Any, torch: Any) -> Any:
  # An expanded tensor has more elements than its storage, so a small file could exhaust memory.
  if tensor.numel() > max(_EXPANDED, tensor.untyped_storage().nbytes()):
    raise InvalidValue(f"a tensor of shape {list(tensor.shape)} does not fit its storage")
  # NumPy has no bfloat16; float32 represents all of its values.
  return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
