"""Reads PyTorch checkpoints from strangers: as data only, nothing in them is ever executed."""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

# The first release in which no known checkpoint can break out of `weights_only=True`
# (CVE-2025-32434 was fixed in 2.6, CVE-2026-24747 in 2.10).
_SAFE_TORCH = "2.10"


def read(path: str | os.PathLike) -> dict:
  """Reads a checkpoint that `torch.save` wrote, in the zip format or the older pickle format.

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
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    # Inside, because lazily damaged tensors (no storage, unknown layout) fail only here.
    plain = _to_plain(checkpoint, torch)
  except Exception as error:  # the parsers raise every kind of exception on damaged files
    # PyTorch's own message advises to switch its protection off; do not repeat that.
    if blocked := re.search(r"GLOBAL (\S+)", str(error)):
      raise ValueError(
        f"{path} needs {blocked[1]} to be executed, expected nothing but tensors and plain "
        "containers: nothing was executed, do not trust this file; if it is your own, save only "
        "`model.state_dict()`"
      ) from None
    reason = str(error).split(". ")[0].split("\n")[0]
    raise ValueError(
      f"{path} is truncated or not a checkpoint that torch.save wrote "
      f"({type(error).__name__}: {reason}): fetch it again and compare its size and checksum with "
      "the published ones"
    ) from None
  if not isinstance(plain, dict):
    raise ValueError(
      f"{path} holds a {type(checkpoint).__name__}, expected a dict of tensors: save "
      "`model.state_dict()`"
    )
  return plain


def import_torch() -> Any:
  """Imports PyTorch if it is new enough to read files from strangers; else an ImportError."""
  try:
    import torch
  except ImportError as error:
    raise ImportError(
      "PyTorch is needed to read its checkpoints: pip install 'unseg-jax[convert]'"
    ) from error
  if torch.__version__ < _SAFE_TORCH:
    raise ImportError(
      f"PyTorch {torch.__version__} can be made to execute code by a checkpoint, expected "
      f"{_SAFE_TORCH} or newer: pip install --upgrade 'unseg-jax[convert]'"
    )
  return torch


def _to_plain(value: Any, torch: Any) -> Any:
  if isinstance(value, Mapping):
    return {key: _to_plain(item, torch) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_to_plain(item, torch) for item in value]
  if isinstance(value, torch.Tensor):
    value = value.detach()
    # numpy has no bfloat16; float32 holds every value of it.
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
  return value
