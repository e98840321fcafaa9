"""StyleGAN3 as upstream computes it without its CUDA kernels, from its published description.

Every sample has its own kernel; upsampling inserts zeros; filters are depthwise convolutions. The
arrays have upstream's keys.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from checkpoints_convert import stylegan3 as stylegan3_format
from checkpoints_convert import stylegan3_filters
from unseg_jax.generators import Generator, stylegan3

MARGIN, CLAMP, OUTPUT_SCALE = 10, 256, 0.25
# Settings of the published networks, by configuration.
T: dict[str, Any] = {"channel_base": 32768, "channel_max": 512}
R = {"channel_base": 65536, "channel_max": 1024, "conv_kernel": 1, "use_radial_filters": True}
DEFAULTS = {"num_layers": 14, "num_critical": 2, "first_cutoff": 2, "first_stopband": 2**2.1}
DEFAULTS |= {"last_stopband_rel": 2**0.3, "conv_kernel": 3, "use_radial_filters": False}
DEFAULTS |= {"w_dim": 512, "z_dim": 512, "mapping_layers": 2}


class Affine(nn.Module):
  """A fully connected layer with equalised learning rate."""

  def __init__(self, size_in: int, size_out: int, multiplier: float = 1):
    super().__init__()
    self.multiplier = multiplier
    self.weight = nn.Parameter(torch.randn(size_out, size_in) / multiplier)
    self.bias = nn.Parameter(torch.ones(size_out))

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    gain = self.multiplier / math.sqrt(self.weight.shape[1])
    return F.linear(x, gain * self.weight, self.multiplier * self.bias)


class Input(nn.Module):
  """Fourier features."""

  def __init__(self, channels: int, size: int, band: stylegan3_filters.Band, w_dim: int):
    super().__init__()
    self.size, self.band = size, band
    self.weight = nn.Parameter(torch.randn(channels, channels))
    self.affine = Affine(w_dim, 4)
    directions = F.normalize(torch.randn(channels, 2))
    self.register_buffer("freqs", directions * band.cutoff * torch.rand(channels, 1))
    self.register_buffer("phases", torch.rand(channels) - 0.5)
    self.register_buffer("transform", torch.eye(3))

  def forward(self, w: torch.Tensor) -> torch.Tensor:
    t = self.affine(w)
    t = t / t[:, :2].norm(dim=1, keepdim=True)
    rotation = torch.eye(3).repeat(len(w), 1, 1)
    rotation[:, 0, 0], rotation[:, 0, 1] = t[:, 0], -t[:, 1]
    rotation[:, 1, 0], rotation[:, 1, 1] = t[:, 1], t[:, 0]
    shift = torch.eye(3).repeat(len(w), 1, 1)
    shift[:, 0, 2], shift[:, 1, 2] = -t[:, 2], -t[:, 3]
    transform = rotation @ shift @ self.transform
    phases = self.phases + (self.freqs @ transform[:, :2, 2:]).squeeze(2)
    freqs = self.freqs @ transform[:, :2, :2]
    fading = (freqs.norm(dim=2) - self.band.cutoff) / (self.band.rate / 2 - self.band.cutoff)
    line = (torch.arange(self.size) + 0.5 - self.size / 2) / self.band.rate
    y, x = torch.meshgrid(line, line, indexing="ij")
    angles = x[..., None] * freqs[:, None, None, :, 0] + y[..., None] * freqs[:, None, None, :, 1]
    waves = torch.sin(2 * math.pi * (angles + phases[:, None, None]))
    waves = waves * (1 - fading).clamp(0, 1)[:, None, None]
    return (waves @ (self.weight / math.sqrt(len(self.weight))).T).permute(0, 3, 1, 2)


def filtered(x: torch.Tensor, taps: torch.Tensor, up: int, padding: tuple[int, int]):
  """Upsamples `[N, C, H, W]` with zeros, pads or crops, and filters."""
  batch, channels, height, width = x.shape
  x = x.reshape(batch, channels, height, 1, width, 1)
  x = F.pad(x, (0, up - 1, 0, 0, 0, up - 1)).reshape(batch, channels, height * up, width * up)
  x = F.pad(x, (*padding, *padding))
  kernels = (taps[None], taps[:, None]) if taps.ndim == 1 else (taps,)
  for kernel in kernels:
    x = F.conv2d(x, kernel.expand(channels, 1, *kernel.shape), groups=channels)
  return x


class Layer(nn.Module):
  """A modulated convolution, followed by an activation between two filters."""

  def __init__(self, channels, kernel_size, w_dim, sizes, bands, is_colours, is_radial):
    super().__init__()
    self.is_colours = is_colours
    self.weight = nn.Parameter(torch.randn(channels[1], channels[0], kernel_size, kernel_size))
    self.bias = nn.Parameter(0.1 * torch.randn(channels[1]))
    self.affine = Affine(w_dim, channels[0])
    self.register_buffer("magnitude_ema", torch.tensor(1.3))
    if is_colours:
      return
    design = stylegan3_filters.design(*bands, 6, 2, is_radial)
    self.up, self.down = design.up, design.down
    self.register_buffer("up_filter", torch.tensor(design.up_filter, dtype=torch.float32))
    self.register_buffer("down_filter", torch.tensor(design.down_filter, dtype=torch.float32))
    size_in = sizes[0] + kernel_size - 1
    total = (sizes[1] - 1) * self.down + 1 - size_in * self.up
    total += len(self.up_filter) + len(self.down_filter) - 2
    before = (total + self.up) // 2
    self.padding = (before, total - before)

  def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    styles, weight = self.affine(w), self.weight
    if self.is_colours:
      kernels = weight[None] * styles[:, None, :, None, None] / math.sqrt(weight.shape[1])
    else:
      weight = weight / weight.square().mean((1, 2, 3), keepdim=True).sqrt()
      styles = styles / styles.square().mean().sqrt()
      kernels = weight[None] * styles[:, None, :, None, None]
      kernels = kernels / (kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    kernels = kernels / self.magnitude_ema.sqrt()
    batch, channels, height, width = x.shape
    x = x.reshape(1, batch * channels, height, width)
    x = F.conv2d(x, kernels.flatten(0, 1), padding=weight.shape[-1] - 1, groups=batch)
    x = x.reshape(batch, -1, *x.shape[2:]) + self.bias[:, None, None]
    if self.is_colours:
      return x.clamp(-CLAMP, CLAMP)
    x = filtered(x, self.up * self.up_filter, self.up, self.padding)
    x = (math.sqrt(2) * F.leaky_relu(x, 0.2)).clamp(-CLAMP, CLAMP)
    return filtered(x, self.down_filter, 1, (0, 0))[:, :, :: self.down, :: self.down]


class Network(nn.Module):
  """The synthesis network, and the arrays of a mapping network that is never run."""

  def __init__(self, img_resolution: int, **settings: Any):
    super().__init__()
    settings = {**DEFAULTS, **settings}
    count, w_dim = settings["num_layers"], settings["w_dim"]
    bands = stylegan3_filters.find_bands(count, img_resolution, settings)
    sizes = [band.rate + 2 * MARGIN for band in bands[:-2]] + [img_resolution] * 2
    base, most = settings["channel_base"], settings["channel_max"]
    channels = [round(min(base / 2 / band.cutoff, most)) for band in bands]
    channels[-1] = 3
    self.synthesis, self.mapping = nn.Module(), nn.Module()
    self.synthesis.input = Input(channels[0], sizes[0], bands[0], w_dim)
    channels, bands = [channels[0], *channels], [bands[0], *bands]
    self.names = [f"L{i}_{sizes[i]}_{channels[i + 1]}" for i in range(count + 1)]
    sizes = [sizes[0], *sizes]
    around = (list(itertools.pairwise(x)) for x in (channels, sizes, bands))
    for i, (name, around_channels, around_sizes, around_bands) in enumerate(
      zip(self.names, *around, strict=True)
    ):
      is_colours = i == count
      is_radial = settings["use_radial_filters"] and i < count - settings["num_critical"]
      layer = Layer(
        around_channels,
        1 if is_colours else settings["conv_kernel"],
        w_dim,
        around_sizes,
        around_bands,
        is_colours,
        is_radial,
      )
      self.synthesis.add_module(name, layer)
    self.mapping.register_buffer("w_avg", torch.zeros(w_dim))
    for i in range(settings["mapping_layers"]):
      size_in = w_dim if i else settings["z_dim"]
      self.mapping.add_module(f"fc{i}", Affine(size_in, w_dim, 0.01))

  def forward(self, ws: torch.Tensor) -> torch.Tensor:
    """Returns images `[N, 3, S, S]` of latents `[N, layers + 2, w_dim]`."""
    x = self.synthesis.input(ws[:, 0])
    for i, name in enumerate(self.names):
      x = self.synthesis.get_submodule(name)(x, ws[:, i + 1])
    return OUTPUT_SCALE * x


def network(img_resolution: int, **settings: Any) -> Network:
  """Returns a network with random weights."""
  torch.manual_seed(0)
  return Network(img_resolution, **settings).eval()


def converted(twin: Network, settings: Mapping[str, Any]) -> Generator:
  """Returns this package's generator with the twin's weights.

  Args:
    twin: the network.
    settings: upstream's settings that the arrays do not determine.
  """
  arrays = {key: np.asarray(array) for key, array in twin.state_dict().items()}
  _, config, variables = stylegan3_format.convert(arrays, settings)
  return stylegan3.build(config, variables, "twin")


def images(twin: Network, latents: np.ndarray) -> np.ndarray:
  """Returns images `[N, S, S, 3]` of latents `[N, layers + 2, w_dim]`."""
  with torch.no_grad():
    return twin(torch.tensor(latents)).permute(0, 2, 3, 1).numpy()
