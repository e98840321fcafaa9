"""StyleGAN2 as saved by rosinality's `stylegan2-pytorch`, and by networks trained with it.

The network is NVIDIA's with other names (see its model.py), without bounds on activations. CIPS is
built from its layers and uses their names.
"""

import itertools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from checkpoints_convert import state_dict, stylegan2
from checkpoints_convert.variants import Variant
from unseg_jax.errors import InvalidValue

_LR_MLP = 0.01  # Upstream's learning rate multiplier of the mapping network.
_FILTER_GAIN = 4  # Upstream's filters relative to NVIDIA's, which sum to 1.

# Many users publish checkpoints, but the project itself does not.
VARIANTS: dict[str, Variant] = {}
# Keys that only checkpoints of this format contain.
SIGNATURE = ("input.input", "to_rgb1.conv.weight", "style.1.weight")
PREFERRED_ENTRY = "g_ema"
BESIDE = ("latent_avg",)


def convert(checkpoint: Mapping, settings: Mapping[str, Any]) -> tuple[str, dict, dict]:
  """Converts rosinality's `Generator`.

  Args:
    checkpoint: `{'g_ema': {'style.1.weight': ...}, 'latent_avg': ...}`, or the inner state dict.
      Training checkpoints lack `latent_avg`.
    settings: `lr_mlp`, upstream's option (default 0.01).

  Returns:
    The architecture's name "stylegan2", its config, inferred from shapes, and its float32
    variables. Without `latent_avg`, the average latent is that of `stylegan2.mean_latent`.

  Raises:
    ValueError: a key is missing or unexpected, an array differs from upstream's format, or the
      setting is invalid.
  """
  lr_mlp = read_lr_mlp(settings, ())
  arrays = as_nvidia(checkpoint.get("g_ema", checkpoint))
  names = mapping_names(arrays) | _synthesis_names(count(arrays, "to_rgbs.{}.bias"))
  average = checkpoint.get("latent_avg")
  state = state_dict.StateDict(with_average(arrays, average), names)
  config, variables = stylegan2.convert_network(state, None, lr_mlp)
  if average is None:
    mapping = variables["params"]["mapping"]
    mapping["average"] = stylegan2.mean_latent(mapping)
  # Upstream truncates every row of a latent.
  return "stylegan2", config | {"truncation_cutoff": None}, variables


def read_lr_mlp(settings: Mapping[str, Any], others: tuple[str, ...]) -> float:
  """Returns the setting `lr_mlp`, and rejects all settings except it and `others`.

  Raises:
    ValueError: `lr_mlp` is not a positive number, or a setting is unknown.
  """
  state_dict.check_settings(settings, ("lr_mlp", *others))
  value = settings.get("lr_mlp", _LR_MLP)
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  if not is_number or not 0 < value < np.inf:
    raise InvalidValue(
      f"lr_mlp is {value!r}, expected a positive number: use --config=FILE with JSON such as "
      '{"lr_mlp": 0.01}'
    )
  return float(value)


def as_nvidia(arrays: Any) -> dict[str, Any]:
  """Returns a state dict with the shapes and gains of NVIDIA's arrays.

  It removes batch axes of length 1 and scales filters to a sum of 1.

  Raises:
    Mismatch: `arrays` is not a dict.
  """
  if not isinstance(arrays, Mapping):
    raise state_dict.Mismatch(f"expected a dict of arrays by name, got a {type(arrays).__name__}")
  return {
    str(key): _as_nvidia(str(key), array) if isinstance(array, np.ndarray) else array
    for key, array in arrays.items()
  }


def _as_nvidia(key: str, array: np.ndarray) -> np.ndarray:
  """Converts one array. An array of unexpected shape is unchanged; its reader reports it."""
  if key.endswith((".blur.kernel", ".upsample.kernel")):
    return array / _FILTER_GAIN
  is_weight = key.endswith(".conv.weight") and array.ndim == 5
  if array.shape[:1] == (1,) and (is_weight or key.endswith((".noise.weight", "input.input"))):
    return array.reshape(array.shape[1:])
  if key.startswith("noises.") and array.shape[:2] == (1, 1):
    return array[0, 0]
  if re.fullmatch(r"to_rgb(1|s\.\d+)\.bias", key) and array.shape[:1] + array.shape[2:] == (
    1,
    1,
    1,
  ):
    return array[0, :, 0, 0]
  return array


def count(arrays: Mapping[str, Any], key: str, first: int = 0) -> int:
  """Counts the keys `key.format(first)`, `key.format(first + 1)`, ... that a state dict holds."""
  found = (key.format(i) in arrays for i in itertools.count(first))
  return sum(itertools.takewhile(bool, found))


def with_average(arrays: Mapping[str, Any], average: Any) -> dict[str, Any]:
  """Adds the average latent; None adds zeros of its length, which are to be replaced."""
  if average is None:
    bias = arrays.get(f"style.{count(arrays, 'style.{}.weight', 1)}.bias", np.zeros(1))
    average = np.zeros(np.shape(bias), np.float32)
  return {**arrays, "latent_avg": average}


def mapping_names(arrays: Mapping[str, Any]) -> dict[str, str]:
  """Maps NVIDIA's names of the mapping network's arrays to upstream's."""
  names = {"mapping.w_avg": "latent_avg"}
  # One layer more than exists, so that the reader reports a missing key by upstream's name.
  for i in range(count(arrays, "style.{}.weight", 1) + 1):
    names |= {f"mapping.fc{i}.{name}": f"style.{i + 1}.{name}" for name in ("weight", "bias")}
  return names


def layer_names(ours: str, upstream: str) -> dict[str, str]:
  """Maps NVIDIA's names of the arrays of a `StyledConv` to upstream's."""
  return {
    **_modulation_names(ours, upstream),
    f"{ours}.bias": f"{upstream}.activate.bias",
    f"{ours}.noise_strength": f"{upstream}.noise.weight",
  }


def colour_names(ours: str, upstream: str) -> dict[str, str]:
  """Maps NVIDIA's names of the arrays of a `ToRGB` to upstream's."""
  return _modulation_names(ours, upstream) | {f"{ours}.bias": f"{upstream}.bias"}


def _modulation_names(ours: str, upstream: str) -> dict[str, str]:
  return {
    f"{ours}.weight": f"{upstream}.conv.weight",
    f"{ours}.affine.weight": f"{upstream}.conv.modulation.weight",
    f"{ours}.affine.bias": f"{upstream}.conv.modulation.bias",
  }


def _synthesis_names(num_blocks: int) -> dict[str, str]:
  """Maps NVIDIA's names to upstream's, which number all convolutions and noises consecutively."""
  first = "synthesis.b4"
  names = {
    f"{first}.const": "input.input",
    f"{first}.conv1.noise_const": "noises.noise_0",
    **layer_names(f"{first}.conv1", "conv1"),
    **colour_names(f"{first}.torgb", "to_rgb1"),
  }
  for i in range(num_blocks):
    block = f"synthesis.b{8 * 2**i}"
    for name, number in (("conv0", 2 * i), ("conv1", 2 * i + 1)):
      names |= layer_names(f"{block}.{name}", f"convs.{number}")
      names[f"{block}.{name}.noise_const"] = f"noises.noise_{number + 1}"
    names |= colour_names(f"{block}.torgb", f"to_rgbs.{i}")
    names[f"{block}.conv0.resample_filter"] = f"convs.{2 * i}.conv.blur.kernel"
    names[f"{block}.resample_filter"] = f"to_rgbs.{i}.upsample.kernel"
  return names
