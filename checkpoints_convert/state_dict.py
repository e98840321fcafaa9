"""Takes exactly the arrays of a known network out of a state dict.

It also has the arithmetic that formats share: PyTorch's layouts to Flax's, and constants of a
trained network (spectral norms, batch norm statistics) folded into its weights.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np

from unseg_jax.errors import InvalidValue

# Maps the number of image channels to a note for the user.
PICTURES = {
  1: "the generator's images are grey and are repeated to RGB",
  3: "",
  4: "the generator's images are RGBA and are composited over white",
}
_SMALL = 2**20  # Numbers that an array of zeros may have regardless of the file's content.
_NUM_NAMED = 3  # Number of problems that an error names; the rest are counted.


class Mismatch(InvalidValue):
  """The arrays differ from those of the network, in `count` cases."""

  def __init__(self, message: str, count: int = 0):
    super().__init__(message)
    self.count = count


class StateDict:
  """A state dict that records which arrays were taken and which problems occurred.

  Take every array that the network needs, then call `finish`, which raises one error for all
  problems.
  """

  def __init__(self, arrays: Any, names: Mapping[str, str] | None = None):
    """Wraps arrays by upstream's key.

    Args:
      arrays: the state dict.
      names: maps the reader's names of arrays to upstream's keys where they differ. Errors use
        upstream's keys.

    Raises:
      Mismatch: `arrays` is not a dict.
    """
    if not isinstance(arrays, Mapping):
      raise Mismatch(f"expected a dict of arrays by name, got a {type(arrays).__name__}")
    self._arrays = {str(key): array for key, array in arrays.items()}
    self._names = dict(names or {})
    # No single array of a network is larger than the total of its arrays.
    held = sum(x.size for x in self._arrays.values() if isinstance(x, np.ndarray))
    self._largest = max(held, _SMALL)
    self._taken: set[str] = set()
    self._missing: list[str] = []
    self._wrong: list[str] = []

  def __contains__(self, key: str) -> bool:
    return self.name(key) in self._arrays

  def name(self, key: str) -> str:
    """Returns upstream's key of an array."""
    return self._names.get(key, key)

  def keys(self) -> Iterable[str]:
    """Returns upstream's keys."""
    return self._arrays.keys()

  def size(self, key: str, axis: int = 0) -> int:
    """Returns the size of an array along an axis, to infer settings; 1 if the array is missing."""
    key = self.name(key)
    array = self._arrays.get(key)
    if array is None:
      self._missing.append(key)
    return array.shape[axis] if isinstance(array, np.ndarray) and array.ndim > axis else 1

  def size_of_pictures(self, key: str, axis: int = 0) -> int:
    """Returns the number of image channels from the last layer's array: 1, 3 or 4."""
    key, channels = self.name(key), self.size(key, axis)
    if key in self._arrays and channels not in PICTURES:
      self._wrong.append(
        f"{key} makes pictures of {channels} channels, expected 1 (grey), 3 (RGB) or 4 (RGBA)"
      )
      return 3
    return channels

  def take(self, key: str, *shape: int) -> np.ndarray:
    """Returns an array as float64 if it is valid; otherwise zeros, and `finish` raises an error.

    Args:
      key: upstream's key, or a name that `names` maps to it.
      shape: the expected shape.
    """
    key = self.name(key)
    self._taken.add(key)
    if key not in self._arrays:
      self._missing.append(key)
      return self._zeros(shape)
    if problem := _find_problem(key, self._arrays[key], shape):
      self._wrong.append(problem)
      return self._zeros(shape)
    return self._arrays[key].astype(np.float64)

  def _zeros(self, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a substitute for an invalid array; raises now if forged shapes need much memory."""
    if math.prod(shape) > self._largest:
      self._stop()
    return np.zeros(shape)

  def _stop(self) -> NoReturn:
    problems = (
      [f"missing keys: {name_first(dict.fromkeys(self._missing))}"] if self._missing else []
    )
    problems += [name_first(self._wrong)] if self._wrong else []
    raise Mismatch("; ".join(problems), len(set(self._missing)) + len(self._wrong))

  def ignore(self, *suffixes: str) -> None:
    """Marks the keys with these suffixes as known and unused, regardless of their arrays."""
    self._taken.update(key for key in self._arrays if key.endswith(suffixes))

  def finish(self) -> None:
    """Raises a Mismatch that names the first problems, if any.

    `*.num_batches_tracked` is optional: batch norms count training steps in it, and do not use it
    in evaluation mode.
    """
    self.ignore(".num_batches_tracked")
    problems = []
    if self._missing:
      problems.append(f"missing keys: {name_first(dict.fromkeys(self._missing))}")
    if unexpected := [key for key in self._arrays if key not in self._taken]:
      problems.append(f"unexpected keys: {name_first(unexpected)}")
    # Wrong keys most likely mean another network, whose shapes would not be informative.
    if not problems and self._wrong:
      problems.append(name_first(self._wrong))
    if problems:
      count = len(set(self._missing)) + len(unexpected) + len(self._wrong)
      raise Mismatch("; ".join(problems), count)


def _find_problem(key: str, array: Any, shape: tuple[int, ...]) -> str | None:
  if not isinstance(array, np.ndarray) or not np.issubdtype(array.dtype, np.floating):
    kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
    return f"{key} is of type {kind}, expected an array of floating-point numbers"
  if array.shape != shape:
    return f"{key} has shape {list(array.shape)}, expected {list(shape)}"
  if not array.size:
    return f"{key} has shape {list(array.shape)}, expected at least one number"
  if not np.isfinite(array).all():
    return f"{key} holds NaN or infinity, expected finite numbers"
  if max(abs(array.min()), abs(array.max())) > np.finfo(np.float32).max:
    return f"{key} holds numbers outside the range of float32, expected float32 numbers"
  if key.rpartition(".")[2] in ("running_var", "running_vars", "stored_var") and (array < 0).any():
    return f"{key} holds {array.min()}, expected variances of at least 0"
  return None


def name_first(names: Iterable[str]) -> str:
  """Joins the first few names and counts the rest."""
  names = list(names)
  rest = f" and {len(names) - _NUM_NAMED} more" if len(names) > _NUM_NAMED else ""
  return ", ".join(names[:_NUM_NAMED]) + rest


def check_settings(settings: Mapping[str, Any], known: Iterable[str]) -> None:
  """Raises a ValueError if `--config` gives settings that the format does not support."""
  if unknown := sorted(set(settings) - set(known)):
    raise InvalidValue(
      f"unknown settings: {name_first(unknown)}; expected {', '.join(known) or 'none'}"
    )


def image_channels(channels: int) -> dict[str, int]:
  """Returns the config entry for a generator's number of image channels; none for RGB."""
  return {} if channels == 3 else {"image_channels": channels}


def as_float32(tree: Any) -> Any:
  """Casts every array of a nested dict.

  Raises:
    Mismatch: an array holds NaN, or numbers outside the range of float32.
  """
  if isinstance(tree, Mapping):
    return {name: as_float32(item) for name, item in tree.items()}
  with np.errstate(over="ignore"):
    array = np.asarray(tree, np.float32)
  if not np.isfinite(array).all():
    raise Mismatch(
      "its arrays give weights that are NaN or outside the range of float32, expected those of a "
      "trained network"
    )
  return array


def convolution(weight: np.ndarray, bias: np.ndarray | None = None) -> dict[str, np.ndarray]:
  """Converts PyTorch's `[out, in, kh, kw]` to parameters of `nn.Conv`: `[kh, kw, in, out]`."""
  layer = {"kernel": weight.transpose(2, 3, 1, 0)}
  return layer if bias is None else layer | {"bias": bias}


def dense(weight: np.ndarray, bias: np.ndarray | None = None) -> dict[str, np.ndarray]:
  """Converts PyTorch's `[out, in]` to parameters of `nn.Dense`: `[in, out]`."""
  layer = {"kernel": weight.T}
  return layer if bias is None else layer | {"bias": bias}


def torch_spectral_norm(state: StateDict, prefix: str, *shape: int) -> np.ndarray:
  """Takes a weight under `torch.nn.utils.spectral_norm`: `W / (u^T W v)` with stored u and v."""
  weight = state.take(f"{prefix}.weight_orig", *shape)
  u = state.take(f"{prefix}.weight_u", shape[0])
  v = state.take(f"{prefix}.weight_v", int(np.prod(shape[1:])))
  sigma = u @ weight.reshape(len(u), len(v)) @ v
  return weight / sigma if sigma else weight  # Zero only if an array is wrong or missing.


def take_affine(
  state: StateDict, prefix: str, channels: int, epsilon: float
) -> dict[str, np.ndarray]:
  """Takes a `BatchNorm2d` in evaluation mode as the parameters of `layers.Affine`."""
  scale, offset, mean, variance = (
    state.take(f"{prefix}.{name}", channels)
    for name in ("weight", "bias", "running_mean", "running_var")
  )
  return affine(scale, offset, mean, variance, epsilon)


def affine(
  scale: np.ndarray, offset: np.ndarray, mean: np.ndarray, variance: np.ndarray, epsilon: float
) -> dict[str, np.ndarray]:
  """Converts a batch norm in evaluation mode to parameters of `layers.Affine`."""
  gain = scale / np.sqrt(variance + epsilon)
  return {"scale": gain, "bias": offset - gain * mean}


def conditional_affine(
  scale: np.ndarray, offset: np.ndarray, mean: np.ndarray, variance: np.ndarray, epsilon: float
) -> dict[str, dict[str, np.ndarray]]:
  """Converts a conditional batch norm in evaluation mode to `layers.ConditionalAffine`.

  Upstream computes `(x - mean) / sqrt(variance + epsilon) * (1 + scale c) + offset c` with the
  condition c. The factor of x and the remaining term are each linear in c.

  Args:
    scale: weight `[channels, condition]`, divided by its spectral norm.
    offset: weight `[channels, condition]`, divided by its spectral norm.
    mean: stored mean `[channels]`.
    variance: stored variance `[channels]`.
    epsilon: the epsilon that upstream adds to the variance.
  """
  gain = 1 / np.sqrt(variance + epsilon)
  factor = gain[:, None] * scale
  return {
    "scale": dense(factor, gain),
    "bias": dense(offset - mean[:, None] * factor, -mean * gain),
  }
