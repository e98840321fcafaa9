"""The segmentation U-Net as the reference implementation stores it in PyTorch."""

from collections.abc import Mapping

import numpy as np

from checkpoints_convert import torch_reader

# Upstream's name of each block of two convolutions, and ours, from the input to the output.
_BLOCKS = {
  "inc": "inc",
  **{f"down{i}.maxpool_conv.1": f"down_{i}" for i in (1, 2, 3, 4)},
  **{f"up{i}.conv": f"up_{i}" for i in (1, 2, 3, 4)},
}


def variables_from_state_dict(state_dict: Mapping[str, np.ndarray]) -> dict:
  """Maps upstream's state dict to the variables of the Flax U-Net.

  Args:
    state_dict: arrays by upstream's key, such as `inc.double_conv.0.weight` `[out, in, kh, kw]`.

  Returns:
    `{'params': ..., 'batch_stats': ...}` with the blocks `inc`, `down_1` to `down_4` and `up_1` to
    `up_4`, each of `conv_1`, `norm_1`, `conv_2` and `norm_2`, and the convolution `out`. Kernels
    are `[kh, kw, in, out]`.

  Raises:
    ValueError: a key is missing or unexpected, or an array is not what upstream stores.
  """
  torch_reader.check_state_dict(state_dict, _shapes({}))
  torch_reader.check_state_dict(
    state_dict,
    _shapes({key: a.shape[0] for key, a in state_dict.items() if key.endswith(".weight")}),
  )
  params, batch_stats = {}, {}
  for source, target in _BLOCKS.items():
    params[target], batch_stats[target] = {}, {}
    for i in (1, 2):
      conv, norm = _layers(source, i)
      params[target][f"conv_{i}"] = _convolution(state_dict, conv)
      params[target][f"norm_{i}"] = {
        "scale": state_dict[f"{norm}.weight"],
        "bias": state_dict[f"{norm}.bias"],
      }
      batch_stats[target][f"norm_{i}"] = {
        "mean": state_dict[f"{norm}.running_mean"],
        "var": state_dict[f"{norm}.running_var"],
      }
  params["out"] = _convolution(state_dict, "outc.conv")
  return {"params": params, "batch_stats": batch_stats}


def _layers(source: str, i: int) -> tuple[str, str]:
  """Returns upstream's names of a block's convolution i (1 or 2) and of the batch norm after it."""
  return f"{source}.double_conv.{3 * i - 3}", f"{source}.double_conv.{3 * i - 2}"


def _convolution(state_dict: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
  return {
    "kernel": state_dict[f"{name}.weight"].transpose(2, 3, 1, 0),
    "bias": state_dict[f"{name}.bias"],
  }


def _shapes(widths: Mapping[str, int]) -> dict[str, tuple[int | None, ...]]:
  """Returns upstream's shapes for the output channels of each `*.weight` (any where not given)."""
  shapes = {}
  channels, skips = 3, []
  for source in _BLOCKS:
    if source.startswith("down"):
      skips.append(channels)
    elif source.startswith("up"):  # sees the upsampled channels beside those of the way down
      skip = skips.pop()
      channels = None if None in (channels, skip) else channels + skip
    for i in (1, 2):
      conv, norm = _layers(source, i)
      width = widths.get(f"{conv}.weight")
      shapes[f"{conv}.weight"] = (width, channels, 3, 3)
      shapes[f"{conv}.bias"] = (width,)
      for name in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"{norm}.{name}"] = (width,)
      channels = width
  return shapes | {"outc.conv.weight": (2, channels, 1, 1), "outc.conv.bias": (2,)}
