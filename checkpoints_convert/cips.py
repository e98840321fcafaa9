"""CIPS as saved by saic-mdal/CIPS, the class `CIPSskip`.

Its layers have the names of rosinality's StyleGAN2, from which upstream imports them.
"""

from collections.abc import Mapping
from typing import Any

from checkpoints_convert import rosinality, state_dict, stylegan2
from checkpoints_convert.variants import Variant
from unseg_jax.errors import InvalidValue

# Its README links the checkpoints, which need a manual download.
VARIANTS: dict[str, Variant] = {}
# Keys that only checkpoints of this format contain.
SIGNATURE = ("lff.ffm.conv.weight", "emb.input", "conv1.conv.weight")
PREFERRED_ENTRY = "g_ema"


def convert(checkpoint: Mapping, settings: Mapping[str, Any]) -> tuple[str, dict, dict]:
  """Converts `CIPSskip`, whose coordinates span -1 to 1.

  Args:
    checkpoint: the state dict of upstream's `g_ema`, or `{'g_ema': {'emb.input': ...}}`.
    settings: `image_size` and `lr_mlp`. `image_size` is the image side in pixels; its default is
      the side of `emb.input`, which is wrong for upstream's 1024 x 1024 network. `lr_mlp` is
      upstream's option (default 0.01).

  Returns:
    The architecture's name "cips", its config (see `generators.cips.build`), inferred from shapes,
    and its float32 variables `{'params': {'mapping', 'synthesis'}}`. The average latent is that of
    `stylegan2.mean_latent`.

  Raises:
    ValueError: a key is missing or unexpected, an array differs from upstream's format, the network
      is of another class, or a setting is invalid.
  """
  lr_mlp = rosinality.read_lr_mlp(settings, ("image_size",))
  arrays = rosinality.as_nvidia(checkpoint.get("g_ema", checkpoint))
  if "to_rgb_last.bias" in arrays:
    raise InvalidValue("it holds to_rgb_last.bias, so it is a CIPSres: expected a CIPSskip")
  num_blocks = rosinality.count(arrays, "to_rgbs.{}.bias")
  state = state_dict.StateDict(rosinality.with_average(arrays, None), _names(arrays, num_blocks))

  w_dim = state.size("mapping.w_avg")
  mapping, z_dim, _ = stylegan2.take_mapping(state, w_dim, lr_mlp)
  hidden, grid_size = state.size("emb.input", 1), state.size("emb.input", 2)
  frequencies = state.take("lff.ffm.conv.weight", hidden, 2, 1, 1)[:, :, 0, 0]
  phases = state.take("lff.ffm.conv.bias", hidden)
  learned = state.take("emb.input", 1, hidden, grid_size, grid_size)[0]

  def take_layer(name, size_in, size_out):
    layer = stylegan2.take_layer(state, name, size_in, size_out, w_dim, 1)
    return layer | {"kernel": layer["kernel"][0, 0]}

  channels = [state.size("conv1.weight")]
  image_channels = state.size_of_pictures("to_rgbs.0.bias")
  synthesis: dict[str, Any] = {
    "fourier": state_dict.dense(frequencies, phases),
    "learned": learned.transpose(1, 2, 0),
    "conv": take_layer("conv1", 2 * hidden, channels[0]),
  }
  for i in range(num_blocks):
    channels.append(state.size(f"linears.{2 * i}.weight"))
    synthesis[f"block_{i}"] = {
      "conv_0": take_layer(f"linears.{2 * i}", channels[i], channels[i + 1]),
      "conv_1": take_layer(f"linears.{2 * i + 1}", channels[i + 1], channels[i + 1]),
      "colours": stylegan2.take_colours(
        state, f"to_rgbs.{i}", channels[i + 1], w_dim, image_channels
      ),
    }
  state.finish()
  mapping["average"] = stylegan2.mean_latent(mapping)

  config = {
    "z_dim": z_dim,
    "mapping_widths": [len(layer["bias"]) for name, layer in mapping.items() if "dense" in name],
    "num_classes": 0,
    "class_features": 0,
    "hidden": hidden,
    "channels": channels,
    "grid_size": grid_size,
    "image_size": _read_image_size(settings, grid_size),
    "truncation_psi": 0.5,
    "truncation_cutoff": None,
    "noise": "none",
    **state_dict.image_channels(image_channels),
  }
  params = {"mapping": mapping, "synthesis": synthesis}
  return "cips", config, {"params": state_dict.as_float32(params)}


def _names(arrays: Mapping[str, Any], num_blocks: int) -> dict[str, str]:
  """Maps NVIDIA's names of arrays to upstream's. Layers keep upstream's names."""
  names = rosinality.mapping_names(arrays) | rosinality.layer_names("conv1", "conv1")
  for i in range(2 * num_blocks):
    names |= rosinality.layer_names(f"linears.{i}", f"linears.{i}")
  for i in range(num_blocks):
    names |= rosinality.colour_names(f"to_rgbs.{i}", f"to_rgbs.{i}")
  return names


def _read_image_size(settings: Mapping[str, Any], default: int) -> int:
  value = settings.get("image_size", default)
  if type(value) is not int or value < 2:
    raise InvalidValue(f"image_size={value!r}: expected a whole number of pixels, at least 2")
  return value
