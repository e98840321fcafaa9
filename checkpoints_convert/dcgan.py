"""DCGAN generators of the PyTorch tutorial, such as the one in the PyPI package gan-face-generate.

Upstream's `main` is a sequence of five transposed convolutions, numbered 0, 3, 6, 9 and 12, without
biases. A batch norm follows each of them except the last.
"""

import itertools
from collections.abc import Mapping
from typing import Any

from checkpoints_convert import state_dict
from checkpoints_convert.variants import Variant

_NUM_NORMS = 4
_EPSILON = 1e-5  # The default of torch.nn.BatchNorm2d.

VARIANTS: dict[str, Variant] = {}
# Keys that only checkpoints of this format contain.
SIGNATURE = ("main.0.weight", "main.12.weight")
PREFERRED_ENTRY: str | None = None


def convert(checkpoint: Mapping, settings: Mapping[str, Any]) -> tuple[str, dict, dict]:
  """Converts a DCGAN generator and folds its batch norms into the preceding convolutions.

  Args:
    checkpoint: `{'netG_state_dict': {'main.0.weight': ...}}`, or the inner state dict.
    settings: must be empty; the shapes determine everything.

  Returns:
    The architecture's name, its config `{'latent_size', 'widths', 'channels'}`, inferred from
    shapes, and its float32 variables `{'params': {'project', 'upsample_0', ... 'upsample_3'}}`. The
    kernel of `project` is `[latent_size, 4, 4, out]`; other kernels are `[kh, kw, in, out]`. The
    last layer has no bias.

  Raises:
    ValueError: a key is missing or unexpected, or an array differs from upstream's format.
  """
  state_dict.check_settings(settings, ())
  state = state_dict.StateDict(checkpoint.get("netG_state_dict", checkpoint))
  latent_size, *features = (state.size(f"main.{3 * i}.weight") for i in range(_NUM_NORMS + 1))
  channels = state.size_of_pictures(f"main.{3 * _NUM_NORMS}.weight", 1)
  params = {}
  for i, (size_in, size_out) in enumerate(itertools.pairwise((latent_size, *features, channels))):
    name = "project" if i == 0 else f"upsample_{i - 1}"
    # PyTorch's transposed convolutions are [in, out, kh, kw].
    kernel = state.take(f"main.{3 * i}.weight", size_in, size_out, 4, 4)
    kernel = kernel.transpose((0, 2, 3, 1) if i == 0 else (2, 3, 0, 1))
    if i < _NUM_NORMS:
      norm = state_dict.take_affine(state, f"main.{3 * i + 1}", size_out, _EPSILON)
      params[name] = {"kernel": kernel * norm["scale"], "bias": norm["bias"]}
    else:
      params[name] = {"kernel": kernel}
  state.finish()
  config = {"latent_size": latent_size, "widths": features, "channels": channels}
  return "dcgan", config, {"params": state_dict.as_float32(params)}
