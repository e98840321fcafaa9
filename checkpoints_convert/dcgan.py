"""DCGAN generators of the PyTorch tutorial, as the PyPI package gan-face-generate publishes one.

Upstream's `main` is a sequence of five transposed convolutions, numbered 0, 3, 6, 9 and 12 and
without biases; a batch norm follows each but the last.
"""

import itertools
from collections.abc import Mapping

import numpy as np

from checkpoints_convert import torch_reader

_NUM_NORMS = 4
_CHANNELS = 3  # pictures are RGB
_EPSILON = 1e-5  # torch.nn.BatchNorm2d's default


def convert(checkpoint: Mapping) -> tuple[str, dict, dict]:
  """Converts a DCGAN generator, its batch norms folded into the convolutions before them.

  Args:
    checkpoint: `{'netG_state_dict': {'main.0.weight': ...}}`, or that inner state dict alone.

  Returns:
    The architecture's name; its config `{'latent_size', 'widths', 'channels'}`, read off the
    shapes; and its float32 variables `{'params': {'project', 'upsample_0', ... 'upsample_3'}}`,
    where a kernel is `[kh, kw, in, out]`, `project`'s is `[latent_size, 4, 4, out]`, and the last
    layer has no bias.

  Raises:
    ValueError: a key is missing or unexpected, or an array is not what upstream stores.
  """
  state_dict = checkpoint.get("netG_state_dict", checkpoint)
  torch_reader.check_state_dict(state_dict, _shapes([None] * (_NUM_NORMS + 1)))
  kernels = [state_dict[f"main.{3 * i}.weight"] for i in range(_NUM_NORMS + 1)]
  latent_size, *widths = (kernel.shape[0] for kernel in kernels)
  torch_reader.check_state_dict(state_dict, _shapes([latent_size, *widths]))

  params = {}
  for i, kernel in enumerate(kernels):
    name = "project" if i == 0 else f"upsample_{i - 1}"
    axes = (0, 2, 3, 1) if i == 0 else (2, 3, 0, 1)  # PyTorch's is [in, out, kh, kw]
    gain, bias = _fold_norm(state_dict, f"main.{3 * i + 1}") if i < _NUM_NORMS else (1, None)
    params[name] = {"kernel": (kernel.transpose(axes).astype(np.float64) * gain).astype(np.float32)}
    if bias is not None:
      params[name]["bias"] = bias.astype(np.float32)
  config = {"latent_size": latent_size, "widths": widths, "channels": _CHANNELS}
  return "dcgan", config, {"params": params}


def _shapes(sizes: list[int | None]) -> dict[str, tuple[int | None, ...]]:
  """Returns upstream's shapes for these input channels of each convolution (None: any)."""
  shapes = {}
  for i, (size_in, size_out) in enumerate(itertools.pairwise([*sizes, _CHANNELS])):
    shapes[f"main.{3 * i}.weight"] = (size_in, size_out, 4, 4)
    if i < _NUM_NORMS:
      for name in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"main.{3 * i + 1}.{name}"] = (size_out,)
  return shapes


def _fold_norm(state_dict: Mapping[str, np.ndarray], prefix: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns a batch norm in evaluation mode as float64 gain and bias: `norm(x) = gain x + bias`."""
  gamma, beta, mean, variance = (
    state_dict[f"{prefix}.{name}"].astype(np.float64)
    for name in ("weight", "bias", "running_mean", "running_var")
  )
  gain = gamma / np.sqrt(variance + _EPSILON)
  return gain, beta - gain * mean
