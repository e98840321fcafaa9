"""StyleGAN2-ADA generators, as saved by NVIDIA's PyTorch code (`training/networks.py`).

Upstream multiplies every weight by a constant gain at run time (equalised learning rate, arXiv
1710.10196, section 4.1). The conversion folds the gains into the weights.
"""

import numbers
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from checkpoints_convert import state_dict
from checkpoints_convert.variants import Variant
from unseg_jax.errors import InvalidValue
from unseg_jax.generators import style_latents
from unseg_jax.generators.base import apply

_URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained"
_NAMES = ("ffhq", "afhqcat", "afhqdog", "afhqwild", "metfaces")
_EPSILON = 1e-8  # Of upstream's normalisation of class embeddings.
_FILTER = np.outer((1, 3, 3, 1), (1, 3, 3, 1)) / 64
# Values of the published networks that shapes do not determine. A .pkl stores them.
_LR_MULTIPLIER = 0.01
_CLAMP = 256
_NUM_AVERAGED = 4_096  # Number of latents whose mean replaces a missing average.

VARIANTS = {f"stylegan2-{name}": Variant(f"{_URL}/{name}.pkl", {}) for name in _NAMES}
# Keys that only checkpoints of this format contain.
SIGNATURE = ("synthesis.b4.const", "mapping.fc0.weight", "mapping.w_avg")
PREFERRED_ENTRY: str | None = None


def convert(checkpoint: Mapping, settings: Mapping[str, Any]) -> tuple[str, dict, dict]:
  """Converts a StyleGAN2 generator of architecture `skip` with grey, RGB or RGBA images.

  Args:
    checkpoint: the result of `nvidia_reader.read`, `{'G_ema': {'synthesis.b4.const': ...},
      'attributes': {...}}`, or the state dict of `G_ema` alone.
    settings: `conv_clamp`, the bound of every layer's absolute values, or None. The default comes
      from the checkpoint's attributes; for a bare state dict it is 256.

  Returns:
    The architecture's name, its config (see `generators.stylegan2.build`), inferred from shapes,
    and its float32 variables `{'params': {'mapping', 'synthesis'}}`.

  Raises:
    ValueError: a key is missing or unexpected, an array differs from upstream's format, the kind of
      network is not supported, or a setting is invalid.
  """
  state_dict.check_settings(settings, ("conv_clamp",))
  attributes = checkpoint.get("attributes", {})
  clamp = find_clamp(attributes, settings)
  lr_multiplier = find_lr_multiplier(attributes)
  state = state_dict.StateDict(checkpoint.get("G_ema", checkpoint))
  # Layers that do not upsample also store filters, but do not use them.
  state.ignore(".conv1.resample_filter", ".b4.resample_filter")
  return "stylegan2", *convert_network(state, clamp, lr_multiplier)


def convert_network(
  state: state_dict.StateDict, clamp: float | int | None, lr_multiplier: float | int
) -> tuple[dict, dict]:
  """Converts a network of the architecture "stylegan2", and finishes its state dict.

  Args:
    state: the network's arrays, by NVIDIA's keys.
    clamp: the bound of every layer's absolute values, or None.
    lr_multiplier: the learning rate multiplier of the mapping network, which scales its weights.

  Returns:
    Config and float32 variables, as expected by `generators.stylegan2.build`.

  Raises:
    ValueError: a key is missing or unexpected, an array differs from upstream's format, or the kind
      of network is not supported.
  """
  w_dim = state.size("mapping.w_avg")
  mapping, z_dim, class_shape = take_mapping(state, w_dim, lr_multiplier)
  sizes = [4]
  while f"synthesis.b{2 * sizes[-1]}.conv1.weight" in state:
    sizes.append(2 * sizes[-1])
  channels = [state.size(f"synthesis.b{size}.conv1.weight") for size in sizes]
  image_channels = state.size_of_pictures(f"synthesis.b{sizes[-1]}.torgb.bias")
  constant = state.take("synthesis.b4.const", channels[0], 4, 4).transpose(1, 2, 0)
  synthesis: dict[str, Any] = {"constant": constant}
  filters = {}
  for i, size in enumerate(sizes):
    prefix = f"synthesis.b{size}"
    block, layers = {}, [("conv1", channels[i])]
    if i:
      layers.insert(0, ("conv0", channels[i - 1]))
      for key in (f"{prefix}.conv0.resample_filter", f"{prefix}.resample_filter"):
        filters[state.name(key)] = state.take(key, 4, 4)
    for name, size_in in layers:
      layer = take_layer(state, f"{prefix}.{name}", size_in, channels[i], w_dim, 3)
      noise = state.take(f"{prefix}.{name}.noise_const", size, size)
      layer["noise"] = noise * layer["noise_strength"]
      block[f"conv_{name[-1]}"] = layer
    block["colours"] = take_colours(state, f"{prefix}.torgb", channels[i], w_dim, image_channels)
    synthesis[f"block_{size}"] = block
  state.finish()

  if z_dim < 1:
    raise InvalidValue(
      f"mapping.fc0.weight takes {z_dim + class_shape[1]} features, expected more than the "
      f"{class_shape[1]} of mapping.embed.weight"
    )
  for key, taps in filters.items():
    if not np.allclose(taps, _FILTER, atol=1e-6):
      raise InvalidValue(f"{key} is not the filter [1, 3, 3, 1], the only supported filter")
  config = {
    "z_dim": z_dim,
    "mapping_widths": [len(layer["bias"]) for name, layer in mapping.items() if "dense" in name],
    "num_classes": class_shape[0],
    "class_features": class_shape[1],
    "channels": channels,
    "clamp": clamp,
    "truncation_psi": 0.5,
    "truncation_cutoff": 8,
    "noise": "const",
    **state_dict.image_channels(image_channels),
  }
  params = {"mapping": mapping, "synthesis": synthesis}
  return config, {"params": state_dict.as_float32(params)}


def find_clamp(attributes: Mapping[str, Any], settings: Mapping[str, Any]) -> float | int | None:
  clamps = {value for name, value in attributes.items() if name.endswith(".conv_clamp")}
  if len(clamps) > 1:
    raise InvalidValue(f"the layers have different conv_clamp {clamps}, expected the same for all")
  clamp = settings.get("conv_clamp", clamps.pop() if clamps else _CLAMP)
  is_number = isinstance(clamp, numbers.Real) and not isinstance(clamp, bool)
  if clamp is not None and not (is_number and 0 < clamp < np.inf):
    raise InvalidValue(
      f"conv_clamp is {clamp!r}, expected a positive number or null: use --config=FILE with JSON "
      'such as {"conv_clamp": 256}'
    )
  return clamp


def find_lr_multiplier(attributes: Mapping[str, Any]) -> float | int:
  """Returns the mapping network's multiplier, and checks all activation functions."""
  for name, value in attributes.items():
    activation = "linear" if name.split(".")[-2:-1] in (["affine"], ["embed"]) else "lrelu"
    if name.endswith(".activation") and value != activation:
      raise InvalidValue(f"{name} is {value!r}, expected {activation!r}: no other is supported")
  # Upstream scales a layer's bias by the multiplier alone.
  return attributes.get("mapping.fc0.bias_gain", _LR_MULTIPLIER)


def take_mapping(
  state: state_dict.StateDict, w_dim: int, lr_multiplier: float | int
) -> tuple[dict, int, tuple[int, int]]:
  """Takes a `MappingNetwork`.

  Returns:
    The parameters, the noise length, and (number of classes, embedding length).
  """
  params: dict[str, Any] = {"average": state.take("mapping.w_avg", w_dim)}
  class_shape = (0, 0)
  if "mapping.embed.weight" in state:
    features, num_classes = (state.size("mapping.embed.weight", axis) for axis in (0, 1))
    weight = state.take("mapping.embed.weight", features, num_classes) / np.sqrt(num_classes)
    embedding = weight.T + state.take("mapping.embed.bias", features)
    mean_square = np.mean(embedding**2, axis=1, keepdims=True)
    params["classes"] = {"embedding": embedding / np.sqrt(mean_square + _EPSILON)}
    class_shape = (num_classes, features)
  size_in = state.size("mapping.fc0.weight", 1)
  z_dim = size_in - class_shape[1]
  i = 0
  while i == 0 or f"mapping.fc{i}.weight" in state:
    is_last = f"mapping.fc{i + 1}.weight" not in state
    size_out = w_dim if is_last else state.size(f"mapping.fc{i}.weight")
    layer = take_dense(state, f"mapping.fc{i}", size_in, size_out, lr_multiplier)
    params[f"dense_{i}"] = layer
    size_in = size_out
    i += 1
  return params, z_dim, class_shape


def take_dense(
  state: state_dict.StateDict, prefix: str, size_in: int, size_out: int, gain: float | int = 1.0
) -> dict[str, np.ndarray]:
  """Takes a `FullyConnectedLayer`; `gain` is its learning rate multiplier."""
  weight = state.take(f"{prefix}.weight", size_out, size_in) / np.sqrt(size_in)
  return state_dict.dense(gain * weight, gain * state.take(f"{prefix}.bias", size_out))


def take_layer(
  state: state_dict.StateDict,
  prefix: str,
  size_in: int,
  size_out: int,
  w_dim: int,
  kernel_size: int,
) -> dict[str, Any]:
  """Takes a `SynthesisLayer` without its noise.

  Upstream's weight has no gain, because it is normalised.
  """
  weight = state.take(f"{prefix}.weight", size_out, size_in, kernel_size, kernel_size)
  return {
    "style": take_dense(state, f"{prefix}.affine", w_dim, size_in),
    **state_dict.convolution(weight, state.take(f"{prefix}.bias", size_out)),
    "noise_strength": state.take(f"{prefix}.noise_strength"),
  }


def take_colours(
  state: state_dict.StateDict, prefix: str, size_in: int, w_dim: int, channels: int
) -> dict[str, Any]:
  """Takes a `ToRGBLayer`; upstream applies its weight gain to the style."""
  weight = state.take(f"{prefix}.weight", channels, size_in, 1, 1)[:, :, 0, 0] / np.sqrt(size_in)
  return {
    "style": take_dense(state, f"{prefix}.affine", w_dim, size_in),
    **state_dict.dense(weight, state.take(f"{prefix}.bias", channels)),
  }


def mean_latent(mapping: Mapping[str, Any]) -> np.ndarray:
  """Computes the average latent for truncation, for checkpoints that do not store it.

  Args:
    mapping: the parameters of an unconditional `generators.style_latents.Mapping`.

  Returns:
    The mean of 4,096 latents of seeded noise, `[w_dim]`.
  """
  layers = [mapping[f"dense_{i}"] for i in range(sum("dense" in name for name in mapping))]
  network = style_latents.Mapping(
    tuple(len(layer["bias"]) for layer in layers), 1, truncation_psi=1
  )
  # NumPy guarantees that the numbers of this random generator never change.
  shape = (_NUM_AVERAGED, len(layers[0]["kernel"]))
  noise = np.random.RandomState(0).standard_normal(shape).astype(np.float32)
  with jax.default_matmul_precision("highest"):
    latents = apply(network, {"params": state_dict.as_float32(mapping)}, noise, None)
  return np.asarray(latents).mean(axis=(0, 1))
