"""Reads PyTorch checkpoints from strangers: as data only, nothing in them is ever executed."""

import os
import pathlib
import re
from typing import Any

from checkpoints_convert import inert
from unseg_jax.errors import InvalidValue, MissingPackage

# The first release in which no known checkpoint can break out of `weights_only=True`
# (CVE-2025-32434 was fixed in 2.6, CVE-2026-24747 in 2.10).
_SAFE_TORCH = "2.10"
_ZIP = b"PK"  # what PyTorch's newer files, which are zip archives, begin with
_NUM_PICKLES = 4  # in the older ones: a magic number, a version, the machine, the checkpoint
_EXPANDED = 2**20  # elements that a tensor may have whatever the size of its storage


def read(path: str | os.PathLike) -> dict:
  """Reads a checkpoint that `torch.save` wrote, in the zip format or the older pickle format.

  Objects of settings, such as Lightning's hyper-parameters, are read as `inert.Setting`: their
  classes are neither imported nor asked. A name that is only mentioned, such as a class that is the
  key of a dict, is read as a class that refuses to be called.

  Args:
    path: the checkpoint, holding a dict: a state dict, or a dict of state dicts and settings.

  Returns:
    The same nested dict of plain containers, every tensor a numpy array (bfloat16 as float32).

  Raises:
    FileNotFoundError: there is no such file.
    ImportError: PyTorch is missing, or too old to read untrusted files.
    ValueError: the file is truncated, is not such a checkpoint, or needs code to be executed.
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
    # Inside, because lazily damaged tensors (no storage, unknown layout) fail only here.
    plain = _to_plain(checkpoint, torch, {})
  except inert.Refused as error:
    raise _refusal(path, str(error)) from None
  except Exception as error:  # the parsers raise every kind of exception on damaged files
    # PyTorch's own message advises to switch its protection off; do not repeat that.
    if blocked := re.search(r"GLOBAL (\S+)", str(error)):
      raise _refusal(path, blocked[1]) from None
    if "persistent_load of storage" in str(error):  # of the older files
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
  """Imports PyTorch if it is new enough to read files from strangers; else an ImportError."""
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
    f"{path} needs {name} to be executed, expected nothing but tensors, plain containers and "
    "settings: nothing was executed, do not trust this file; if it is your own, save only "
    "`model.state_dict()`"
  )


def _find_names(path: str | os.PathLike, torch: Any) -> list[str]:
  """The names of classes and functions in a checkpoint that PyTorch does not read by itself."""
  with open(path, "rb") as file:
    if file.read(2) == _ZIP:
      return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    file.seek(0)
    # Four pickles, the last of which is the checkpoint; the tensors' bytes follow.
    known = torch._weights_only_unpickler._get_allowed_globals()
    found = (torch._weights_only_unpickler.get_globals_in_pkl(file) for _ in range(_NUM_PICKLES))
    return sorted(set().union(*found).difference(known))


def _to_plain(value: Any, torch: Any, done: dict[int, Any]) -> Any:
  """Copies containers, each once, however often it is mentioned; `done` holds them by identity."""
  if id(value) in done:
    return done[id(value)]
  if isinstance(value, dict):
    # Not `value.items()`: a file may set attributes of an OrderedDict, and hide its methods.
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
  # An expanded tensor has more elements than its storage; a small file could fill all memory.
  if tensor.numel() > max(_EXPANDED, tensor.untyped_storage().nbytes()):
    raise InvalidValue(f"a tensor of shape {list(tensor.shape)} does not fit its storage")
  # numpy has no bfloat16; float32 holds every value of it.
  return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
