"""The segmentation U-Net and its training step."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from checkpoints_convert.unet import variables_from_state_dict


class Block(nn.Module):
  """Two times: 3 x 3 convolution, batch norm, ReLU."""

  def __init__(self, inputs: int, outputs: int):
    super().__init__()
    layers = []
    for size in (inputs, outputs):
      layers += [nn.Conv2d(size, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(True)]
    self.double_conv = nn.Sequential(*layers)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.double_conv(x)


class Unet(nn.Module):
  """The segmentation U-Net, `[N, 3, H, W] -> [N, 2, H, W]`, with upstream's module names."""

  def __init__(self, features: Sequence[int]):
    super().__init__()
    self.inc = Block(3, features[0])
    ups = (*features[-3::-1], features[0])
    channels = features[-1]
    for i in range(1, 5):
      down, up = nn.Module(), nn.Module()
      down.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), Block(features[i - 1], features[i]))
      up.conv = Block(channels + features[4 - i], ups[i - 1])
      channels = ups[i - 1]
      setattr(self, f"down{i}", down)
      setattr(self, f"up{i}", up)
    self.outc = nn.Module()
    self.outc.conv = nn.Conv2d(channels, 2, 1)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    levels = [self.inc(x)]
    for i in range(1, 5):
      levels.append(getattr(self, f"down{i}").maxpool_conv(levels[-1]))
    x = levels.pop()
    for i in range(1, 5):
      x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
      x = getattr(self, f"up{i}").conv(torch.cat([levels.pop(), x], dim=1))
    return self.outc.conv(x)


def network(features: Sequence[int]) -> Unet:
  """Returns a U-Net with random weights, the same at each call."""
  torch.manual_seed(0)
  return Unet(features)


def flax_variables(unet: Unet) -> dict[str, Any]:
  """Returns the current weights and statistics as variables of this package's U-Net."""
  arrays = {name: array.numpy().copy() for name, array in unet.state_dict().items()}
  return variables_from_state_dict(arrays)


def logits(unet: Unet, pixels: np.ndarray) -> np.ndarray:
  """Returns logits `[N, H, W, 2]` of uint8 images `[N, H, W, 3]`, in evaluation mode."""
  images = torch.tensor(pixels.transpose(0, 3, 1, 2)).float() / 127.5 - 1
  with torch.no_grad():
    return unet.eval()(images).permute(0, 2, 3, 1).numpy()


def training_step(
  unet: Unet,
  batch: dict[str, np.ndarray],
  config: Any,
  device: str = "cpu",
  memory_format: torch.memory_format = torch.channels_last,
) -> Callable[[], torch.Tensor]:
  """Returns a function that takes a training step on a fixed batch and returns the loss.

  Args:
    unet: the network, which is moved to the device.
    batch: `image` `[N, S, S, 3]` uint8 and `mask` `[N, S, S, 1]` uint8, where 255 is foreground.
    config: `config.train` of an experiment, for the learning rate and the type.
    device: the device.
    memory_format: memory format of weights and images.
  """
  unet.train().to(device, memory_format=memory_format)
  optimizer = torch.optim.Adam(unet.parameters(), lr=config.learning_rate)
  pixels = torch.tensor(batch["image"].transpose(0, 3, 1, 2)).to(device)
  targets = torch.tensor(batch["mask"][..., 0] > 127).long().to(device)

  def step():
    inputs = pixels.float().contiguous(memory_format=memory_format) / 127.5 - 1
    with torch.autocast(device, torch.bfloat16, enabled=config.dtype == "bfloat16"):
      found = unet(inputs)
    loss = F.cross_entropy(found.float(), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()

  return step
