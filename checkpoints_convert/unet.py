"""The segmentation U-Net as saved by the reference implementation in PyTorch."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from checkpoints_convert import state_dict
from checkpoints_convert.variants import Variant
from unseg_jax.errors import InvalidValue

# Maps upstream's names of blocks with two convolutions to ours, from input to output.
_BLOCKS = {
  "inc": "inc",
  **{f"down{i}.maxpool_conv.1": f"down_{i}" for i in (1, 2, 3, 4)},
  **{f"up{i}.conv": f"up_{i}" for i in (1, 2, 3, 4)},
}


_IMAGE_SIZE = 128  # Of the published U-Nets.
_LEAST_SIZE = 16  # Halving it four times leaves one pixel.

VARIANTS: dict[str, Variant] = {}
# Keys that only checkpoints of this format contain.
SIGNATURE = ("inc.double_conv.0.weight", "outc.conv.weight")
PREFERRED_ENTRY: str | None = None


def convert(checkpoint: Mapping, settings: Mapping[str, Any]) -> tuple[str, dict, dict]:
  """Converts a segmentation U-Net whose class 1 is the foreground.

  Args:
    checkpoint: the state dict published by "Big GANs Are Watching You" (arXiv 2006.04988). In the
      Lightning checkpoints of the original implementation it is under `net.`.
    settings: `image_size`, the shorter side of an image in pixels (default 128).

  Returns:
    "unet", its config `{'widths', 'image_size'}`, and the variables of
    `variables_from_state_dict`.

  Raises:
    ValueError: a setting is unknown or invalid, or the arrays differ from those of the U-Net.
  """
  state_dict.check_settings(settings, ("image_size",))
  image_size = settings.get("image_size", _IMAGE_SIZE)
  if type(image_size) is not int or image_size < _LEAST_SIZE:
    raise InvalidValue(
      f"image_size={image_size!r}: expected a whole number of pixels, at least {_LEAST_SIZE}"
    )
  variables = variables_from_state_dict(checkpoint)
  levels = ["inc", *(f"down_{i}" for i in (1, 2, 3, 4))]
  features = [variables["params"][level]["conv_1"]["kernel"].shape[-1] for level in levels]
  config = {"widths": features, "image_size": image_size}
  return "unet", config, variables


def variables_from_state_dict(arrays: Mapping[str, Any]) -> dict[str, Any]:
  """Maps upstream's state dict to the variables of the Flax U-Net.

  Args:
    arrays: arrays by upstream's key, such as `inc.double_conv.0.weight` `[out, in, kh, kw]`.

  Returns:
    `{'params': ..., 'batch_stats': ...}` with the blocks `inc`, `down_1` to `down_4` and `up_1` to
    `up_4`, each of `conv_1`, `norm_1`, `conv_2` and `norm_2`, and the convolution `out`. Kernels
    are `[kh, kw, in, out]`.

  Raises:
    ValueError: a key is missing or unexpected, or an array differs from upstream's format.
  """
  state = state_dict.StateDict(arrays)
  params: dict[str, dict[str, Any]] = {}
  batch_stats: dict[str, dict[str, Any]] = {}
  channels, skips = 3, []
  for source, target in _BLOCKS.items():
    if source.startswith("down"):
      skips.append(channels)
    elif source.startswith("up"):  # Its input is the upsampled channels and those of the skip.
      channels += skips.pop()
    params[target], batch_stats[target] = {}, {}
    for i in (1, 2):
      conv, norm = (f"{source}.double_conv.{3 * i - n}" for n in (3, 2))
      features = state.size(f"{conv}.weight")
      params[target][f"conv_{i}"] = _convolution(state, conv, features, channels, 3, 3)
      names = ("weight", "bias", "running_mean", "running_var")
      scale, bias, mean, variance = (state.take(f"{norm}.{name}", features) for name in names)
      params[target][f"norm_{i}"] = {"scale": scale, "bias": bias}
      batch_stats[target][f"norm_{i}"] = {"mean": mean, "var": variance}
      channels = features
  params["out"] = _convolution(state, "outc.conv", 2, channels, 1, 1)
  state.finish()
  return state_dict.as_float32({"params": params, "batch_stats": batch_stats})


def _convolution(state: state_dict.StateDict, name: str, *shape: int) -> dict[str, np.ndarray]:
  weight, bias = state.take(f"{name}.weight", *shape), state.take(f"{name}.bias", shape[0])
  return state_dict.convolution(weight, bias)
