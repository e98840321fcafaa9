"""The face generator, a DCGAN."""

from typing import Any

import torch
from torch import nn


def generator(variables: dict[str, Any]) -> nn.Sequential:
  """Returns the DCGAN with folded weights: `[N, latent_size] -> [N, 3, 64, 64]`."""
  layers: list[nn.Module] = []
  for name, layer in variables["params"].items():
    first = name == "project"
    kernel = torch.tensor(
      layer["kernel"].transpose(0, 3, 1, 2) if first else layer["kernel"].transpose(2, 3, 0, 1)
    ).contiguous()
    convolution = nn.ConvTranspose2d(
      *kernel.shape[:2], 4, *((1, 0) if first else (2, 1)), bias="bias" in layer
    )
    convolution.weight = nn.Parameter(kernel)
    if "bias" in layer:
      convolution.bias = nn.Parameter(torch.tensor(layer["bias"]))
    layers += [convolution, nn.ReLU()]
  pixels = nn.Unflatten(1, (-1, 1, 1))
  return nn.Sequential(pixels, *layers[:-1], nn.Tanh()).eval().requires_grad_(False)
