"""Self-conditioned GANs and their unconditional baseline, from stevliu/self-conditioned-gan.

The generator is upstream's `resnet2`: a dense layer `fc`, six stages of two residual blocks,
`resnet_0_0` to `resnet_5_1`, and a convolution `conv_img`.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from checkpoints_convert import state_dict
from checkpoints_convert.variants import Variant
from unseg_jax.errors import InvalidValue

_MULTIPLES = (16, 16, 8, 4, 2, 1)  # Channels of each stage, in multiples of the last stage's.
_RESIDUAL_SCALE = 0.1  # Of every residual branch, in gan_training/models/blocks.py.
_EMBEDDING = "get_latent.embedding.weight"
_WEIGHTS = "http://selfcondgan.csail.mit.edu/weights"

VARIANTS = {
  "selfcondgan-imagenet": Variant(
    f"{_WEIGHTS}/selfcondgan_i_model.pt", {"z_dim": 256}, "ImageNet in 100 clusters, 128 x 128"
  ),
  "uncondgan-imagenet": Variant(
    f"{_WEIGHTS}/uncondgan_i_model.pt", {"z_dim": 256}, "ImageNet, unconditional, 128 x 128"
  ),
}
# Keys that only checkpoints of this format contain.
SIGNATURE = ("resnet_0_0.conv_0.weight", "resnet_5_1.conv_1.weight")
PREFERRED_ENTRY = "generator"  # Not its moving average, following the paper.


def convert(checkpoint: Mapping, settings: Mapping[str, Any]) -> tuple[str, dict, dict]:
  """Converts a `resnet2` generator; it is conditional if it has a class embedding.

  From a training checkpoint, this takes `generator` as in the paper (arXiv 2105.08127), not its
  moving average `generator_test`. Class embeddings are scaled to unit length and residual branches
  by 0.1, as upstream does for every image.

  Args:
    checkpoint: `{'generator': {'fc.weight': ...}, 'it': ...}`, or the inner state dict. All keys
      may start with `module.`, as `DataParallel` saves them.
    settings: optionally `z_dim`, the length of a latent, to be checked. The shapes alone determine
      everything.

  Returns:
    The architecture's name, its config and its float32 variables. The config is `{'latent_size',
    'size', 'widths', 'num_classes', 'embedding_size'}`; the last two are None for an unconditional
    network. The variables are `{'params': {'embedding', 'project', 'block_0_0', ... 'block_5_1',
    'image'}}`.

  Raises:
    ValueError: a key is missing or unexpected, or an array differs from upstream's format.
  """
  state_dict.check_settings(settings, ("z_dim",))
  z_dim = settings.get("z_dim")
  if z_dim is not None and (type(z_dim) is not int or z_dim < 1):
    raise InvalidValue(f"the setting z_dim is {z_dim!r}, expected a whole number of at least 1")
  arrays = checkpoint.get("generator", checkpoint)
  if isinstance(arrays, Mapping) and all(str(key).startswith("module.") for key in arrays):
    arrays = {key.removeprefix("module."): array for key, array in arrays.items()}
  state = state_dict.StateDict(arrays)

  params = {}
  num_classes = embedding_size = None
  if _EMBEDDING in state:
    num_classes, embedding_size = state.size(_EMBEDDING), state.size(_EMBEDDING, 1)
    embedding = state.take(_EMBEDDING, num_classes, embedding_size)
    length = np.linalg.norm(embedding, axis=1, keepdims=True)
    params["embedding"] = {"embedding": embedding / np.where(length > 0, length, 1)}

  unit = state.size("conv_img.weight", 1)
  features = [multiple * unit for multiple in _MULTIPLES]
  size = max(1, math.isqrt(state.size("fc.weight") // features[0]))
  latent_size = z_dim or state.size("fc.weight", 1) - (embedding_size or 0)
  params["project"] = _project(state, latent_size + (embedding_size or 0), size, features[0])
  channels = features[0]
  for i, channels_out in enumerate(features):
    for j in range(2):
      name = f"resnet_{i}_{j}"
      params[f"block_{i}_{j}"] = _residual_block(state, name, channels, channels_out)
      channels = channels_out
  image_channels = state.size_of_pictures("conv_img.weight")
  params["image"] = _convolution(state, "conv_img", image_channels, channels)
  state.finish()
  config = {
    "latent_size": latent_size,
    "size": size,
    "widths": features,
    "num_classes": num_classes,
    "embedding_size": embedding_size,
    **state_dict.image_channels(image_channels),
  }
  return "selfcond", config, {"params": state_dict.as_float32(params)}


def _project(state: state_dict.StateDict, inputs: int, size: int, channels: int) -> dict:
  """Takes the dense layer and reorders its outputs from upstream's `[C, H, W]` to `[H, W, C]`."""
  weight = state.take("fc.weight", channels * size**2, inputs)
  bias = state.take("fc.bias", channels * size**2)
  weight = weight.reshape(channels, size, size, inputs).transpose(1, 2, 0, 3).reshape(-1, inputs)
  bias = bias.reshape(channels, size, size).transpose(1, 2, 0).reshape(-1)
  return state_dict.dense(weight, bias)


def _residual_block(
  state: state_dict.StateDict, name: str, channels_in: int, channels_out: int
) -> dict[str, Any]:
  hidden = min(channels_in, channels_out)
  block = {
    "conv_0": _convolution(state, f"{name}.conv_0", hidden, channels_in),
    "conv_1": _convolution(state, f"{name}.conv_1", channels_out, hidden, _RESIDUAL_SCALE),
  }
  if channels_in != channels_out:
    shortcut = state.take(f"{name}.conv_s.weight", channels_out, channels_in, 1, 1)
    block["shortcut"] = state_dict.dense(shortcut[:, :, 0, 0])
  return block


def _convolution(
  state: state_dict.StateDict, name: str, channels_out: int, channels_in: int, scale: float = 1.0
) -> dict:
  weight = state.take(f"{name}.weight", channels_out, channels_in, 3, 3)
  return state_dict.convolution(scale * weight, scale * state.take(f"{name}.bias", channels_out))
