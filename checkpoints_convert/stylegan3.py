"""StyleGAN3 generators, as saved by NVIDIA's PyTorch code (`networks_stylegan3.py`).

The conversion folds the gains of the equalised learning rate and the norms of the kernels into the
weights. Sizes and sampling rates follow from a few settings of the network. The checkpoint holds
the filters, which are compared with those that the settings give.
"""

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from checkpoints_convert import state_dict, stylegan2, stylegan3_filters
from checkpoints_convert.state_dict import StateDict
from checkpoints_convert.stylegan3_filters import Band, Design
from checkpoints_convert.variants import Variant
from unseg_jax.errors import InvalidValue

_URL = "https://api.ngc.nvidia.com/v2/models/nvidia/research/stylegan3/versions/1/files"
_NAMES = {
  "ffhq": "ffhq-1024x1024",
  "ffhqu": "ffhqu-1024x1024",
  "ffhqu-256": "ffhqu-256x256",
  "afhqv2": "afhqv2-512x512",
  "metfaces": "metfaces-1024x1024",
  "metfacesu": "metfacesu-1024x1024",
}
# Arguments of upstream's constructor that arrays do not determine, with upstream's defaults.
_BAND_DEFAULTS: dict[str, float | int] = {
  "num_critical": 2,
  "first_cutoff": 2,
  "first_stopband": 2**2.1,
  "last_stopband_rel": 2**0.3,
}
_DEFAULTS: dict[str, float | int] = {
  **_BAND_DEFAULTS,
  "margin_size": 10,
  "output_scale": 0.25,
  "filter_size": 6,
  "lrelu_upsampling": 2,
}
_WHOLE_NUMBERS = ("num_critical", "margin_size", "filter_size", "lrelu_upsampling")
_LEAST = {"num_critical": 0, "margin_size": 0, "lrelu_upsampling": 2}
# Arguments that arrays determine; given values are compared with the arrays.
_INFERRED = (
  "z_dim",
  "c_dim",
  "w_dim",
  "img_resolution",
  "img_channels",
  "num_layers",
  "conv_kernel",
)
# Arguments that do not affect images, or affect only shapes.
_IGNORED = (
  "channel_base",
  "channel_max",
  "class_name",
  "magnitude_ema_beta",
  "num_fp16_res",
  "use_radial_filters",
)
_FEWEST_LAYERS = 2
# Relative to the largest tap. Filters with a different cutoff differ by much more.
_FILTER_TOLERANCE = 1e-4

VARIANTS = {
  f"stylegan3-{config}-{name}": Variant(f"{_URL}/stylegan3-{config}-{file}.pkl", {})
  for config, (name, file) in itertools.product("tr", _NAMES.items())
}
# Keys that only checkpoints of this format contain.
SIGNATURE = ("synthesis.input.freqs", "synthesis.input.transform", "mapping.w_avg")
# An entry that a checkpoint may hold beside the arrays: the arguments of upstream's constructor.
BESIDE = ("init_kwargs",)
PREFERRED_ENTRY: str | None = None


@dataclasses.dataclass(frozen=True)
class _Layer:
  """A layer and the size in its name, `synthesis.L<number>_<size>_<channels>`."""

  key: str
  size: int


def convert(checkpoint: Mapping, settings: Mapping[str, Any]) -> tuple[str, dict, dict]:
  """Converts a StyleGAN3 generator, of configuration T or R, with RGB, grey or RGBA images.

  Args:
    checkpoint: the result of `nvidia_reader.read`, `{'G_ema': {'synthesis.input.freqs': ...},
      'attributes': {...}}`, or the state dict of `G_ema`. The latter may be alone, or be the entry
      `G_ema` or `G_ema_state_dict` beside `init_kwargs`, the arguments of upstream's constructor.
    settings: arguments of upstream's constructor, such as `conv_clamp`. They override those in the
      checkpoint. Arguments in neither have upstream's defaults.

  Returns:
    The architecture's name, its config (see `generators.stylegan3.build`) and its float32 variables
    `{'params': {'mapping', 'synthesis'}}`.

  Raises:
    ValueError: a key is missing or unexpected, an array differs from upstream's format, or a
      setting is unknown, invalid, or contradicts the arrays.
  """
  attributes = checkpoint.get("attributes", {})
  around = {key: array for key, array in checkpoint.items() if key not in BESIDE}
  state = StateDict(checkpoint.get("G_ema", checkpoint.get("G_ema_state_dict", around)))
  layers = _find_layers(state)
  settings = _read_settings(checkpoint.get("init_kwargs"), settings)
  chosen = _choose(settings, attributes, layers)
  bands = _find_bands(settings, chosen, attributes, layers)

  w_dim = state.size("mapping.w_avg")
  lr_multiplier = settings.get("lr_multiplier", stylegan2.find_lr_multiplier(attributes))
  mapping, z_dim, class_shape = stylegan2.take_mapping(state, w_dim, lr_multiplier)
  channels = [state.size("synthesis.input.phases")]
  channels += [state.size(f"{layer.key}.weight") for layer in layers]
  kernel_size = state.size(f"{layers[0].key}.weight", 2)
  image_channels = state.size_of_pictures(f"{layers[-1].key}.bias")
  # The Fourier features have the size, rate and cutoff of the first layer.
  sizes = [layers[0].size, *(layer.size for layer in layers)]
  surroundings = list(itertools.pairwise([bands[0], *bands]))
  synthesis = {"features": _take_features(state, channels[0], w_dim)}
  activations, designs = [], {}
  for i, layer in enumerate(layers[:-1]):
    taken, filters = _take_layer(state, layer.key, channels[i], channels[i + 1], w_dim, kernel_size)
    is_radial = filters["down"].ndim == 2
    sampling = (chosen["filter_size"], chosen["lrelu_upsampling"], is_radial)
    design = stylegan3_filters.design(*surroundings[i], *sampling)
    designs[layer.key] = (design, filters)
    down = stylegan3_filters.decompose(filters["down"])
    taken |= {"up": design.up * filters["up"][: len(filters["up"]) // 2], "down": down}
    synthesis[f"layer_{i}"] = taken
    convolved = sizes[i] + kernel_size - 1
    activations.append(design.geometry(convolved, sizes[i + 1], rank=down.shape[1]))
  synthesis["colours"] = _take_colours(state, layers[-1].key, channels[-2], w_dim, image_channels)
  state.finish()

  found = {
    "z_dim": z_dim,
    "c_dim": class_shape[0],
    "w_dim": w_dim,
    "img_resolution": sizes[-1],
    "img_channels": image_channels,
    "num_layers": len(layers) - 1,
    "conv_kernel": kernel_size,
  }
  _check_inferred(settings, found)
  _check_sizes(layers, bands, chosen)
  for key, (design, filters) in designs.items():
    _check_filters(key, design, filters)
  for layer in layers:
    _check_magnitude(state, layer.key)
  config = {
    "z_dim": z_dim,
    "mapping_widths": [len(layer["bias"]) for name, layer in mapping.items() if "dense" in name],
    "num_classes": class_shape[0],
    "class_features": class_shape[1],
    "features": {
      "channels": channels[0],
      "size": sizes[0],
      "rate": bands[0].rate,
      "bandwidth": bands[0].cutoff,
    },
    "channels": channels[1:-1],
    "kernel_size": kernel_size,
    "activations": activations,
    "clamp": stylegan2.find_clamp(attributes, settings),
    "output_scale": chosen["output_scale"],
    "truncation_psi": 0.5,
    "truncation_cutoff": 8,
    **state_dict.image_channels(image_channels),
  }
  params = {"mapping": mapping, "synthesis": synthesis}
  return "stylegan3", config, {"params": state_dict.as_float32(params)}


def _find_layers(state: StateDict) -> list[_Layer]:
  """Returns the layers in order of their numbers, up to the layer that generates colours."""
  pattern = re.compile(r"(synthesis\.L(\d+)_(\d+)_\d+)\.")
  matches = [match for key in state.keys() if (match := pattern.match(key))]
  found = {int(match[2]): _Layer(match[1], int(match[3])) for match in matches}
  layers = [found[i] for i in itertools.takewhile(found.__contains__, itertools.count())]
  if len(layers) < _FEWEST_LAYERS:
    raise state_dict.Mismatch(
      "missing keys: synthesis.L0_36_512.weight, or with another size and number of channels, and "
      "those of the subsequent layers"
    )
  return layers


def _read_settings(init_kwargs: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
  """Merges the constructor's arguments with the given settings, and validates them."""
  merged = {**(init_kwargs if isinstance(init_kwargs, Mapping) else {}), **settings}
  mapping = merged.pop("mapping_kwargs", {})
  if not isinstance(mapping, Mapping):
    raise InvalidValue(f"setting mapping_kwargs is {mapping!r}, expected an object")
  if "lr_multiplier" in mapping:
    merged.setdefault("lr_multiplier", mapping["lr_multiplier"])
  known = (*_DEFAULTS, "conv_clamp", "lr_multiplier", *_INFERRED, *_IGNORED)
  unknown = {name for name in merged if name not in known}
  state_dict.check_settings(dict.fromkeys(sorted(map(str, unknown))), known)
  for name in (*_DEFAULTS, "lr_multiplier"):
    if name in merged:
      _check_number(name, merged[name])
  return merged


def _check_number(name: str, value: Any) -> None:
  is_whole = name in _WHOLE_NUMBERS
  kind = int if is_whole else (int, float)
  least = _LEAST.get(name, 1 if is_whole else 0)
  fits = isinstance(value, kind) and type(value) is not bool and math.isfinite(value)
  if not fits or value < least or (not is_whole and value == 0):
    expected = f"a whole number of at least {least}" if is_whole else "a positive number"
    raise InvalidValue(f"setting {name} is {value!r}, expected {expected}")


def _choose(
  settings: Mapping[str, Any], attributes: Mapping[str, Any], layers: Sequence[_Layer]
) -> dict[str, Any]:
  """Returns values from the settings, else from a pickle's attributes, else upstream's defaults."""
  chosen = dict(_DEFAULTS)
  for name in ("margin_size", "output_scale"):
    chosen[name] = attributes.get(f"synthesis.{name}", chosen[name])

  def of_first(name):
    return attributes.get(f"{layers[0].key}.{name}")

  if of_first("up_taps") and of_first("up_factor"):
    chosen["filter_size"] = of_first("up_taps") // of_first("up_factor")
    # The input and output rates of the first layer are equal.
    chosen["lrelu_upsampling"] = of_first("up_factor")
  return {**chosen, **{name: settings[name] for name in _DEFAULTS if name in settings}}


def _find_bands(
  settings: Mapping[str, Any],
  chosen: Mapping[str, Any],
  attributes: Mapping[str, Any],
  layers: Sequence[_Layer],
) -> list[Band]:
  """Returns the band of every layer, from a pickle's attributes or computed from the settings."""
  names = ("out_sampling_rate", "out_cutoff", "out_half_width")
  keys = [[f"{layer.key}.{name}" for name in names] for layer in layers]
  has_bands = all(isinstance(attributes.get(key), (int, float)) for each in keys for key in each)
  if has_bands and not set(_BAND_DEFAULTS) & set(settings):
    stored = [[attributes[key] for key in each] for each in keys]
    bands = [Band(int(rate), float(cutoff), float(width)) for rate, cutoff, width in stored]
  else:
    bands = stylegan3_filters.find_bands(len(layers) - 1, layers[-1].size, chosen)
  for layer, band, after in zip(layers, bands, bands[1:], strict=False):
    if not 0 < band.cutoff < band.rate or band.half_width <= 0 or after.rate % band.rate:
      raise InvalidValue(
        f"the settings {', '.join(_BAND_DEFAULTS)} give {layer.key} the band {band}, expected a "
        "positive cutoff and half-width and a sampling rate that never decreases: pass the "
        "settings of its training"
      )
  return bands


def _take_features(state: StateDict, channels: int, w_dim: int) -> dict[str, Any]:
  """Takes a `SynthesisInput`."""
  prefix = "synthesis.input"
  weight = state.take(f"{prefix}.weight", channels, channels) / np.sqrt(channels)
  return {
    "frequencies": state.take(f"{prefix}.freqs", channels, 2),
    "phases": state.take(f"{prefix}.phases", channels),
    "transform": state.take(f"{prefix}.transform", 3, 3),
    "motion": stylegan2.take_dense(state, f"{prefix}.affine", w_dim, 4),
    **state_dict.dense(weight),
  }


def _take_layer(
  state: StateDict, key: str, size_in: int, size_out: int, w_dim: int, kernel_size: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Takes a `SynthesisLayer`; returns its parameters and its filters `up` and `down`."""
  weight = state.take(f"{key}.weight", size_out, size_in, kernel_size, kernel_size)
  norms = np.sqrt(np.mean(weight**2, axis=(1, 2, 3), keepdims=True))
  weight = weight / np.where(norms > 0, norms, 1)
  up, down = (f"{key}.{name}_filter" for name in ("up", "down"))
  is_radial = state.size(down, 1) > 1
  filters = {
    "up": state.take(up, state.size(up)),
    "down": state.take(down, *(state.size(down),) * (2 if is_radial else 1)),
  }
  taken = {
    "style": stylegan2.take_dense(state, f"{key}.affine", w_dim, size_in),
    **state_dict.convolution(weight, state.take(f"{key}.bias", size_out)),
    "gain": _take_gain(state, key),
  }
  return taken, filters


def _take_gain(state: StateDict, key: str) -> np.ndarray:
  """Returns the reciprocal root mean square that upstream tracked for a layer's input."""
  magnitude = state.take(f"{key}.magnitude_ema")
  # `_check_magnitude` reports an invalid magnitude.
  return np.asarray(1 / np.sqrt(magnitude) if magnitude > 0 else 1.0)


def _take_colours(
  state: StateDict, key: str, size_in: int, w_dim: int, channels: int
) -> dict[str, Any]:
  """Takes the last `SynthesisLayer`, which is not demodulated."""
  taken = stylegan2.take_colours(state, key, size_in, w_dim, channels)
  return taken | {"kernel": taken["kernel"] * _take_gain(state, key)}


def _check_inferred(settings: Mapping[str, Any], found: Mapping[str, int]) -> None:
  for name, value in found.items():
    if settings.get(name, value) != value:
      raise InvalidValue(
        f"setting {name} is {settings[name]!r}, but the arrays have {value}: expected the settings "
        "of their training"
      )


def _check_sizes(
  layers: Sequence[_Layer], bands: Sequence[Band], chosen: Mapping[str, Any]
) -> None:
  """Raises a ValueError unless all layers except the last two have a margin around the image."""
  sizes = [band.rate + 2 * chosen["margin_size"] for band in bands[:-2]]
  sizes += [layers[-1].size] * 2
  for layer, size in zip(layers, sizes, strict=True):
    if layer.size != size:
      raise InvalidValue(
        f"{layer.key} makes {layer.size} x {layer.size} samples, but the settings give {size} x "
        f"{size}: {_expected_settings()}"
      )


def _check_filters(key: str, design: Design, filters: Mapping[str, np.ndarray]) -> None:
  for name, expected in (("up", design.up_filter), ("down", design.down_filter)):
    taps = filters[name]
    tolerance = _FILTER_TOLERANCE * np.abs(expected).max()
    if taps.shape != expected.shape or not np.allclose(taps, expected, rtol=0, atol=tolerance):
      raise InvalidValue(
        f"{key}.{name}_filter {list(taps.shape)} is not the filter {list(expected.shape)} that the "
        f"settings give: {_expected_settings()}"
      )


def _expected_settings() -> str:
  return (
    "expected those of its training, as --config=FILE with JSON such as "
    f"{json.dumps({name: round(value, 4) for name, value in _DEFAULTS.items()})}"
  )


def _check_magnitude(state: StateDict, key: str) -> None:
  magnitude = state.take(f"{key}.magnitude_ema")
  if not magnitude > 0:
    raise InvalidValue(f"{key}.magnitude_ema is {magnitude}, expected a positive number")
