"""StyleGAN2 as rosinality's `stylegan2-pytorch` saves it, and the many networks trained with it.

The same network as NVIDIA's under other names (its model.py), without bounds on activations. Its
names of layers are also those of CIPS, which is built from them.
"""

import itertools
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from checkpoints_convert import state_dict, stylegan2
from checkpoints_convert.variants import Variant
from unseg_jax.errors import InvalidValue

_LR_MLP = 0.01  # upstream's multiplier of the mapping network's learning rate
_FILTER_GAIN = 4  # of upstream's filters over NVIDIA's, which sum to 1

# Published by many, at no address of the project's own.
VARIANTS: dict[str, Variant] = {}
# Keys that only checkpoints of this format hold.
SIGNATURE = ("input.input", "to_rgb1.conv.weight", "style.1.weight")
PREFERRED_ENTRY = "g_ema"
BESIDE = ("latent_avg",)


def convert(checkpoint: Mapping, settings: Mapping[str, Any]) -> tuple[str, dict, dict]:
  """Converts rosinality's `Generator`.

  Args:
    checkpoint: `{'g_ema': {'style.1.weight': ...}, 'latent_avg': ...}`, of which training
      checkpoints lack the latter, or the inner state dict alone.
    settings: `lr_mlp`, upstream's option of this name; 0.01 if it is not given.

  Returns:
    The architecture's name, "stylegan2"; its config, read off the shapes; and its float32
    variables. Where the checkpoint has no `latent_avg`, the average is that of
    `stylegan2.mean_latent`.

  Raises:
    ValueError: a key is missing or unexpected, an array is not what upstream stores, or the
      setting is wrong.
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
  """Returns the setting `lr_mlp`; no other settings but these may be given.

  Raises:
    ValueError: it is no positive number, or there is another setting.
  """
  state_dict.check_settings(settings, ("lr_mlp", *others))
  value = settings.get("lr_mlp", _LR_MLP)
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  if not is_number or not 0 < value < np.inf:
    raise InvalidValue(
      f"lr_mlp is {value!r}, expected a positive number: --config=FILE of such JSON as "
      '{"lr_mlp": 0.01}'
    )
  return float(value)


def as_nvidia(arrays: Any) -> dict[str, Any]:
  """Returns a state dict whose arrays have the shapes and the gains of NVIDIA's.

  That is without axes of length 1 for the batch, and with filters that sum to 1.

  Raises:
    Mismatch: it is no dict.
  """
  if not isinstance(arrays, Mapping):
    raise state_dict.Mismatch(f"expected a dict of arrays by name, got a {type(arrays).__name__}")
  return {
    str(key): _as_nvidia(str(key), array) if isinstance(array, np.ndarray) else array
    for key, array in arrays.items()
  }


def _as_nvidia(key: str, array: np.ndarray) -> np.ndarray:
  """Returns an array, or what is wrong with its shape as it is, for its reader to name."""
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
  """Adds the average latent: zeros of its length if there is none, to be replaced."""
  if average is None:
    bias = arrays.get(f"style.{count(arrays, 'style.{}.weight', 1)}.bias", np.zeros(1))
    average = np.zeros(np.shape(bias), np.float32)
  return {**arrays, "latent_avg": average}


def mapping_names(arrays: Mapping[str, Any]) -> dict[str, str]:
  """NVIDIA's name -> upstream's, of the mapping network's arrays."""
  names = {"mapping.w_avg": "latent_avg"}
  # One more than there are, which the reader finds absent under upstream's name.
  for i in range(count(arrays, "style.{}.weight", 1) + 1):
    names |= {f"mapping.fc{i}.{name}": f"style.{i + 1}.{name}" for name in ("weight", "bias")}
  return names


def layer_names(ours: str, upstream: str) -> dict[str, str]:
  """NVIDIA's name -> upstream's, of the arrays of a `StyledConv`."""
  return {
    **_modulation_names(ours, upstream),
    f"{ours}.bias": f"{upstream}.activate.bias",
    f"{ours}.noise_strength": f"{upstream}.noise.weight",
  }


def colour_names(ours: str, upstream: str) -> dict[str, str]:
  """NVIDIA's name -> upstream's, of the arrays of a `ToRGB`."""
  return _modulation_names(ours, upstream) | {f"{ours}.bias": f"{upstream}.bias"}


def _modulation_names(ours: str, upstream: str) -> dict[str, str]:
  return {
    f"{ours}.weight": f"{upstream}.conv.weight",
    f"{ours}.affine.weight": f"{upstream}.conv.modulation.weight",
    f"{ours}.affine.bias": f"{upstream}.conv.modulation.bias",
  }


def _synthesis_names(num_blocks: int) -> dict[str, str]:
  """NVIDIA's name -> upstream's; upstream numbers all convolutions and their noise in a row."""
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
