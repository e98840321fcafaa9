"""BigBiGAN's generator, with the operations of `unseg_jax.generators.biggan`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

Weights = dict[str, Any]


def generator(
  variables: dict[str, Any], device: str, dtype: str
) -> Callable[[torch.Tensor], torch.Tensor]:
  """Returns a function that maps latents `[N, latent_size]` to images `[N, 3, S, S]`."""
  dtype = getattr(torch, dtype)
  weights = _to_torch(variables["params"], device, dtype)
  blocks = sum(name.startswith("block_") for name in weights)

  def forward(latents):
    with torch.no_grad():
      first, *pieces = latents.to(dtype).chunk(blocks + 1, dim=1)
      # The projection's output has its channels last.
      x = _dense(first, weights["project"]).unflatten(1, (4, 4, -1)).permute(0, 3, 1, 2)
      for i, piece in enumerate(pieces):
        x = _block(x, weights[f"block_{i}"], piece)
        if f"attention_{i}" in weights:
          x = _attention(x, weights[f"attention_{i}"])
      norm = weights["norm"]
      x = F.relu(x * norm["scale"][:, None, None] + norm["bias"][:, None, None])
      return torch.tanh(_convolution(x, weights["out"])).float()

  return forward


def _to_torch(tree: dict[str, Any], device: str, dtype: torch.dtype) -> Weights:
  def weight(name, array):
    array = torch.tensor(np.asarray(array, np.float32))
    if name == "kernel":
      array = array.permute(3, 2, 0, 1) if array.ndim == 4 else array.T
    tensor = array.to(device, dtype).contiguous()
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

  return {
    name: _to_torch(value, device, dtype) if isinstance(value, dict) else weight(name, value)
    for name, value in tree.items()
  }


def _dense(x: torch.Tensor, layer: Weights) -> torch.Tensor:
  return F.linear(x, layer["kernel"], layer.get("bias"))


def _pointwise(x: torch.Tensor, layer: Weights) -> torch.Tensor:
  return F.conv2d(x, layer["kernel"][..., None, None], layer.get("bias"))


def _convolution(x: torch.Tensor, layer: Weights) -> torch.Tensor:
  return F.conv2d(x, layer["kernel"], layer["bias"], padding=1)


def _affine(x: torch.Tensor, layer: Weights, condition: torch.Tensor) -> torch.Tensor:
  scale, bias = (_dense(condition, layer[name])[..., None, None] for name in ("scale", "bias"))
  return x * scale + bias


def _double(x: torch.Tensor) -> torch.Tensor:
  return F.interpolate(x, scale_factor=2, mode="nearest")


def _block(x: torch.Tensor, layer: Weights, condition: torch.Tensor) -> torch.Tensor:
  h = _convolution(_double(F.relu(_affine(x, layer["norm_1"], condition))), layer["conv_1"])
  h = _convolution(F.relu(_affine(h, layer["norm_2"], condition)), layer["conv_2"])
  return h + _double(_pointwise(x, layer["shortcut"]))


def _attention(x: torch.Tensor, layer: Weights) -> torch.Tensor:
  query = _pointwise(x, layer["query"]).flatten(2)
  key, value = (F.max_pool2d(_pointwise(x, layer[name]), 2).flatten(2) for name in ("key", "value"))
  shares = torch.softmax(query.transpose(1, 2) @ key, dim=-1)
  found = (value @ shares.transpose(1, 2)).unflatten(2, x.shape[2:])
  return x + _pointwise(found, layer["out"])
