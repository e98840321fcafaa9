"""The search of the reference implementation."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

SOBEL = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
SOBEL = torch.stack([SOBEL, SOBEL.T])[:, None]


def grey(images: torch.Tensor) -> torch.Tensor:
  """Returns the luma `[N, H, W]` of `[N, 3, H, W]`."""
  red, green, blue = images.unbind(1)
  return 0.2989 * red + 0.5870 * green + 0.1140 * blue


def distance(size: int) -> torch.Tensor:
  """Returns the weight `[size, size]` of each pixel in the circle loss."""
  line = torch.linspace(-1, 1, size)
  rho = torch.sqrt(line[:, None] ** 2 + line[None] ** 2)
  return 4 * (rho - rho.mean())


def gradient_magnitude(greys: torch.Tensor) -> torch.Tensor:
  """Returns the Sobel magnitude of `[N, H, W]`, with replicated borders."""
  edges = F.conv2d(F.pad(greys[:, None], (1, 1, 1, 1), mode="replicate"), SOBEL)
  return torch.sqrt((edges**2).sum(1) + 1e-6)


class Search:
  """A search with Adam that normalises the direction after each step.

  Attributes:
    direction: `[1, *latent_shape]`.
  """

  def __init__(self, generator: nn.Module, config: Any, direction: np.ndarray, image_size: int):
    self.generator, self.config = generator, config
    self.distance = distance(image_size)
    self.direction = nn.Parameter(torch.tensor(np.asarray(direction)))
    self.optimizer = torch.optim.Adam([self.direction], lr=config.learning_rate)

  def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws latents and radii `[batch_size, *latent_shape]` for a step."""
    latents = torch.randn(self.config.batch_size, *self.direction.shape[1:])
    return latents, (2 + 0.5 * torch.randn_like(latents)).clamp(min=0.1)

  def step(self, latents: torch.Tensor, radii: torch.Tensor) -> tuple[float, float]:
    """Takes a step; returns the weighted losses `outside_circle` and `sobel_shift`."""
    unit = self.direction / self.direction.norm(dim=1, keepdim=True)
    with torch.no_grad():
      images = self.generator(latents)
    shifted = grey(self.generator(latents + radii * unit))
    circle = self.config.circle_weight * (shifted * self.distance).mean()
    change = gradient_magnitude(shifted) - gradient_magnitude(grey(images))
    sobel = self.config.sobel_weight * (change**2).mean()
    self.optimizer.zero_grad()
    (circle + sobel).backward()
    self.optimizer.step()
    with torch.no_grad():
      self.direction /= self.direction.norm(dim=1, keepdim=True)
    return circle.item(), sobel.item()
