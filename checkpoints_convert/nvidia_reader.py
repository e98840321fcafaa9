"""Reads NVIDIA's network pickles as data only, without executing anything.

Such a file carries the Python source of its networks, and normally executes it when opened
(`torch_utils/persistence.py` of stylegan2-ada-pytorch). Here, every name in the file maps to an
inert object of this module, and all other names are rejected. Opening a file therefore only builds
NumPy arrays and plain containers. The source remains an unused string.
"""

import dataclasses
import io
import math
import operator
import os
import pathlib
import pickle
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

from checkpoints_convert import torch_reader
from unseg_jax.errors import InvalidValue

_NETWORK = "G_ema"  # The generator, with weights averaged over training.


def read(path: str | os.PathLike) -> dict[str, dict[str, Any]]:
  """Reads the averaged generator from a pickle of stylegan2-ada-pytorch or a later project.

  Args:
    path: the file, by convention `*.pkl`.

  Returns:
    `{'G_ema': arrays, 'attributes': attributes}`. `arrays` is the network's state dict: parameters
    and buffers as NumPy arrays by upstream's key, such as `synthesis.b4.const`. `attributes` holds
    the modules' plain numbers, strings, booleans and None by dotted name, such as
    `synthesis.b4.conv1.conv_clamp`.

  Raises:
    FileNotFoundError: the file does not exist.
    ImportError: PyTorch is missing, or too old to read untrusted files.
    ValueError: the file is truncated, is not such a pickle, holds no `G_ema`, or requires code to
      be executed.
  """
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(
      f"no checkpoint file at {path}: expected a .pkl that NVIDIA published; check the path"
    )
  torch = torch_reader.import_torch()
  arrays: dict[str, np.ndarray] = {}
  attributes: dict[str, Any] = {}
  try:
    with open(path, "rb") as file:
      content = _Unpickler(file, torch).load()
    network = _check_content(content)
    _flatten(network, "", arrays, attributes, visited=set())
  except _Refused as error:
    raise InvalidValue(f"{path} {error}") from None
  except Exception as error:  # Unpickling damaged files raises every kind of exception.
    reason = str(error).split("\n")[0]
    raise InvalidValue(
      f"{path} is truncated or not a pickle of NVIDIA's networks ({type(error).__name__}: "
      f"{reason}): fetch it again and compare its size with the published one"
    ) from None
  return {_NETWORK: arrays, "attributes": attributes}


class _Refused(InvalidValue):
  """The file is complete but has wrong content; the message follows the file's name."""


def _refuse(name: str) -> NoReturn:
  raise _Refused(
    f"needs {name!r} to be executed, expected only tensors, plain containers and NVIDIA's "
    "modules: nothing was executed, do not trust this file"
  )


def _check_content(content: Any) -> "_Module":
  if not isinstance(content, dict):
    raise _Refused(
      f"holds a {type(content).__name__}, expected a dict with {_NETWORK}: fetch the .pkl of a "
      "trained network"
    )
  network = content.get(_NETWORK)
  if not isinstance(network, _Module):
    raise _Refused(
      f"holds no network {_NETWORK} but {', '.join(map(repr, content)) or 'nothing'}: fetch the "
      ".pkl of a trained network"
    )
  return network


class _Inert:
  """Base of all stand-ins for names in the file; it has no attributes that a file could set."""

  __slots__ = ()

  def __setstate__(self, state: Any) -> None:
    # The pickle opcode BUILD calls this method. Without it, BUILD would set arbitrary attributes.
    raise _Refused(f"sets attributes of a {type(self).__name__[1:].lower()}: do not trust it")


@dataclasses.dataclass(slots=True, eq=False)
class _Function(_Inert):
  function: Callable[..., Any]

  def __call__(self, *arguments: Any) -> Any:
    return self.function(*arguments)


@dataclasses.dataclass(slots=True, eq=False)
class _Storage(_Inert):
  array: np.ndarray  # Flat.


@dataclasses.dataclass(slots=True, eq=False)
class _Tensor(_Inert):
  array: np.ndarray


@dataclasses.dataclass(slots=True, eq=False)
class _Module(_Inert):
  state: Mapping[str, Any]


@dataclasses.dataclass(slots=True, eq=False)
class _Dtype(_Inert):
  name: str
  byte_order: str = "="

  def __setstate__(self, state: tuple) -> None:
    if state[1] not in ("<", ">", "=", "|"):
      raise InvalidValue(f"unknown byte order {state[1]!r}")
    self.byte_order = state[1]


class _NumpyArray(_Inert):
  """Networks consist of tensors, so a NumPy array can only be a setting; it is dropped."""

  __slots__ = ()

  def __setstate__(self, state: Any) -> None:
    pass


class _Dict(dict):
  """Stands in for all dict classes."""

  __slots__ = ()
  __setstate__ = _Inert.__setstate__


class _Unpickler(pickle.Unpickler):
  """Resolves names by a fixed table, in which no name maps to the object that it names."""

  def __init__(self, file: io.BufferedReader, torch: Any):
    super().__init__(file)
    scalar, array = _Function(_make_scalar), _Function(lambda *_: _NumpyArray())
    self._table = {
      ("builtins", "set"): _Function(set),
      ("collections", "OrderedDict"): _Dict,
      ("dnnlib.util", "EasyDict"): _Dict,
      ("numpy", "dtype"): _Function(lambda name, *_: _Dtype(name)),
      ("numpy", "ndarray"): _NumpyArray(),
      ("numpy.core.multiarray", "_reconstruct"): array,
      ("numpy._core.multiarray", "_reconstruct"): array,
      ("numpy.core.multiarray", "scalar"): scalar,
      ("numpy._core.multiarray", "scalar"): scalar,
      ("torch", "Size"): _Function(tuple),
      ("torch", "device"): _Function(lambda *_: None),
      ("torch._utils", "_rebuild_parameter"): _Function(_make_parameter),
      ("torch._utils", "_rebuild_tensor_v2"): _Function(_make_tensor),
      ("torch.storage", "_load_from_bytes"): _Function(lambda data: _load_storage(data, torch)),
      ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Function(_make_module),
    }

  def find_class(self, module: str, name: str) -> Any:
    # The table matches complete names. Pickle would resolve dotted names attribute by attribute;
    # the table has none.
    if (module, name) in self._table:
      return self._table[module, name]
    if module.startswith("dnnlib.tflib."):
      raise _Refused(
        "holds networks of a TensorFlow release of StyleGAN, expected those of "
        "stylegan2-ada-pytorch: convert it first with legacy.py of that project"
      )
    _refuse(f"{module}.{name}")


def _load_storage(data: bytes, torch: Any) -> _Storage:
  """Reads a complete `torch.save` file that is embedded in the pickle and holds one storage."""
  try:
    storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
  except Exception as error:
    # PyTorch's own message suggests disabling its protection, so it is not repeated.
    if blocked := re.search(r"GLOBAL (\S+)", str(error)):
      _refuse(blocked[1])
    raise InvalidValue(f"a tensor inside it is damaged ({type(error).__name__})") from None
  if not isinstance(storage, torch.storage.TypedStorage):
    raise InvalidValue(f"expected a storage inside it, not a {type(storage).__name__}")
  tensor = torch.empty(0, dtype=storage.dtype).set_(storage)
  # NumPy has no bfloat16; float32 represents all of its values.
  return _Storage((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())


def _make_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
  """Cuts a tensor out of a storage; offset and strides count elements."""
  if not isinstance(storage, _Storage):
    raise InvalidValue(f"expected a tensor's storage, not a {type(storage).__name__}")
  flat = storage.array
  offset, shape, strides = operator.index(offset), _integers(shape), _integers(strides)
  last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
  # NumPy would read memory outside the storage. Expanded tensors are larger than their storage.
  if min((offset, *shape, *strides)) < 0 or math.prod(shape) > flat.size:
    raise InvalidValue(f"a tensor of shape {shape} does not fit its storage of {flat.size}")
  if math.prod(shape) == 0:
    return _Tensor(np.zeros(shape, flat.dtype))
  if last >= flat.size:
    raise InvalidValue(f"a tensor of shape {shape} ends beyond its storage of {flat.size}")
  in_bytes = [stride * flat.itemsize for stride in strides]
  return _Tensor(np.lib.stride_tricks.as_strided(flat[offset:], shape, in_bytes).copy())


def _integers(values: Any) -> tuple[int, ...]:
  return tuple(operator.index(value) for value in values)


def _make_parameter(tensor: Any, *_: Any) -> _Tensor:
  if not isinstance(tensor, _Tensor):
    raise InvalidValue(f"expected a parameter's tensor, not a {type(tensor).__name__}")
  return tensor


def _make_module(meta: Any) -> _Module:
  """Keeps a module's attributes, and ignores its class and source."""
  if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
    raise InvalidValue("a module inside it has no state")
  return _Module(meta["state"])


def _make_scalar(dtype: Any, data: Any) -> Any:
  if not isinstance(dtype, _Dtype) or not re.fullmatch("[fiub][0-9]{1,2}", dtype.name):
    raise InvalidValue("expected a number of a plain type")
  return np.frombuffer(data, dtype.byte_order + dtype.name, count=1)[0].item()


def _flatten(
  module: _Module, prefix: str, arrays: dict, attributes: dict, visited: set[int]
) -> None:
  """Collects the content of a module and its submodules, in the order of PyTorch's `state_dict`."""
  if id(module) in visited:
    raise InvalidValue(f"the module {prefix} occurs several times")
  visited.add(id(module))
  state = module.state
  transient = state.get("_non_persistent_buffers_set", ())
  tensors = {
    **state["_parameters"],
    **{name: x for name, x in state["_buffers"].items() if name not in transient},
  }
  for name, tensor in tensors.items():
    if tensor is not None:  # None, for example, as the bias of a layer without bias.
      arrays[f"{prefix}{name}"] = _make_parameter(tensor).array
  for name, value in state.items():
    if not name.startswith("_") and isinstance(value, (bool, int, float, str, type(None))):
      attributes[f"{prefix}{name}"] = value
  for name, child in state["_modules"].items():
    if child is not None:
      if not isinstance(child, _Module):
        raise InvalidValue(f"{prefix}{name} is a {type(child).__name__}, expected a module")
      _flatten(child, f"{prefix}{name}.", arrays, attributes, visited)
