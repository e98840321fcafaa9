"""StyleGAN3's sampling rates and filters, as its constructor derives them from a few settings.

Karras et al., arXiv 2106.12423, sections 3.2 and D; `SynthesisNetwork` and `SynthesisLayer` of
upstream's `training/networks_stylegan3.py`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.signal
import scipy.special

# Singular values of a radial filter that are left out, as shares of the first.
_RANK_TOLERANCE = 1e-7


@dataclasses.dataclass(frozen=True)
class Band:
  """How a layer's result is sampled, and the frequencies in it, per width of the image.

  Attributes:
    rate: samples.
    cutoff: the highest frequency that is to pass, in cycles.
    half_width: half of the transition to those that are not, in cycles.
  """

  rate: int
  cutoff: float
  half_width: float


@dataclasses.dataclass(frozen=True)
class Design:
  """What stands on both sides of a layer's activation.

  Attributes:
    up: how many samples become of one.
    down: how many samples become one.
    up_filter: `[taps]`, of unit sum.
    down_filter: `[taps]`, or `[taps, taps]` if it is radial, of unit sum.
  """

  up: int
  down: int
  up_filter: np.ndarray
  down_filter: np.ndarray

  def geometry(self, size_in: int, size_out: int, rank: int) -> dict[str, int]:
    """Returns the attributes of `generators.filtered_activation.Geometry`.

    Args:
      size_in: what comes out of the layer's convolution, in samples along an axis.
      size_out: what the layer makes.
      rank: of the second filter.
    """
    up_taps, down_taps = len(self.up_filter), len(self.down_filter)
    total = (size_out - 1) * self.down + 1 - size_in * self.up + up_taps + down_taps - 2
    return {
      "size": size_out,
      "up": self.up,
      "down": self.down,
      "up_taps": up_taps,
      "down_taps": down_taps,
      "rank": rank,
      "padding": (total + self.up) // 2,
    }


def find_bands(num_layers: int, resolution: int, settings: Mapping[str, Any]) -> list[Band]:
  """Returns the band of every layer's result.

  Args:
    num_layers: the layers, not counting the one that makes colours.
    resolution: the image's side, in pixels.
    settings: `num_critical`, `first_cutoff`, `first_stopband` and `last_stopband_rel`.
  """
  steps = np.arange(num_layers + 1) / max(num_layers - settings["num_critical"], 1)
  progress = np.minimum(steps, 1)

  def spaced(first, last):
    return first * (last / first) ** progress

  cutoffs = spaced(settings["first_cutoff"], resolution / 2)
  stopbands = spaced(settings["first_stopband"], resolution / 2 * settings["last_stopband_rel"])
  rates = np.exp2(np.ceil(np.log2(np.minimum(2 * stopbands, resolution))))
  half_widths = np.maximum(stopbands, rates / 2) - cutoffs
  told = zip(rates, cutoffs, half_widths, strict=True)
  return [Band(int(rate), float(cutoff), float(width)) for rate, cutoff, width in told]


def design(
  before: Band, after: Band, filter_size: int, lrelu_upsampling: int, is_radial: bool
) -> Design:
  """Designs the filters of the layer between two bands.

  Args:
    before: of the layer's input.
    after: of its result.
    filter_size: taps of a filter for each sample of the lower rate that it spans.
    lrelu_upsampling: how many times the higher of both rates the activation has.
    is_radial: whether the second filter is the same in all directions.
  """
  rate = max(before.rate, after.rate) * lrelu_upsampling
  up, down = rate // before.rate, rate // after.rate
  make = _radial if is_radial else _separable
  up_filter = _separable(filter_size * up, before, rate)
  return Design(up, down, up_filter, make(filter_size * down, after, rate))


def _separable(taps: int, band: Band, rate: int) -> np.ndarray:
  return scipy.signal.firwin(taps, band.cutoff, width=2 * band.half_width, fs=rate)


def _radial(taps: int, band: Band, rate: int) -> np.ndarray:
  """A jinc, the radial ideal low-pass filter, in the window of the separable one."""
  line = (np.arange(taps) - (taps - 1) / 2) / rate
  radius = np.hypot(line[:, None], line)  # never zero, since the number of taps is even
  jinc = scipy.special.j1(2 * math.pi * band.cutoff * radius) / (math.pi * radius)
  attenuation = scipy.signal.kaiser_atten(taps, 4 * band.half_width / rate)
  window = np.kaiser(taps, scipy.signal.kaiser_beta(attenuation))
  filtered = jinc * np.outer(window, window)
  return filtered / filtered.sum()


def decompose(taps: np.ndarray) -> np.ndarray:
  """Splits a symmetric filter into separable ones.

  Args:
    taps: `[taps]` of a separable filter, or `[taps, taps]`, symmetric in every way.

  Returns:
    `[2, rank, taps / 2]`: the first halves of the filters along rows and along columns, whose
    products add up to it.
  """
  half = len(taps) // 2
  if taps.ndim == 1:
    return np.stack((taps, taps))[:, None, :half]
  values, vectors = np.linalg.eigh(taps)
  order = np.argsort(-np.abs(values))
  kept = [i for i in order if abs(values[i]) > _RANK_TOLERANCE * abs(values[order[0]])]
  columns = vectors[:half, kept].T
  return np.stack((values[kept, None] * columns, columns))
