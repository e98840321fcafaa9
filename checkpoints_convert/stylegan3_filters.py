"""StyleGAN3's sampling rates and filters, derived from a few settings as in its constructor.

See Karras et al., arXiv 2106.12423, sections 3.2 and D, and `SynthesisNetwork` and `SynthesisLayer`
in upstream's `training/networks_stylegan3.py`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.signal
import scipy.special

# Singular values of a radial filter below this fraction of the largest one are dropped.
_RANK_TOLERANCE = 1e-7


@dataclasses.dataclass(frozen=True)
class Band:
  """The sampling and frequency band of a layer's output, per width of the image.

  Attributes:
    rate: number of samples.
    cutoff: the highest passed frequency, in cycles.
    half_width: half of the transition band, in cycles.
  """

  rate: int
  cutoff: float
  half_width: float


@dataclasses.dataclass(frozen=True)
class Design:
  """The resampling before and after a layer's activation.

  Attributes:
    up: upsampling factor.
    down: downsampling factor.
    up_filter: `[taps]`, with a sum of 1.
    down_filter: `[taps]`, or `[taps, taps]` if radial, with a sum of 1.
  """

  up: int
  down: int
  up_filter: np.ndarray
  down_filter: np.ndarray

  def geometry(self, size_in: int, size_out: int, rank: int) -> dict[str, int]:
    """Returns the attributes of `generators.filtered_activation.Geometry`.

    Args:
      size_in: output samples of the layer's convolution along an axis.
      size_out: output samples of the layer along an axis.
      rank: rank of the second filter.
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
  """Returns the band of every layer's output.

  Args:
    num_layers: number of layers, without the layer that generates colours.
    resolution: the image side, in pixels.
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
  values = zip(rates, cutoffs, half_widths, strict=True)
  return [Band(int(rate), float(cutoff), float(width)) for rate, cutoff, width in values]


def design(
  before: Band, after: Band, filter_size: int, lrelu_upsampling: int, is_radial: bool
) -> Design:
  """Designs the filters of the layer between two bands.

  Args:
    before: the band of the layer's input.
    after: the band of the layer's output.
    filter_size: filter taps per sample at the lower rate.
    lrelu_upsampling: the activation's rate relative to the higher of both rates.
    is_radial: whether the second filter is rotationally symmetric.
  """
  rate = max(before.rate, after.rate) * lrelu_upsampling
  up, down = rate // before.rate, rate // after.rate
  make = _radial if is_radial else _separable
  up_filter = _separable(filter_size * up, before, rate)
  return Design(up, down, up_filter, make(filter_size * down, after, rate))


def _separable(taps: int, band: Band, rate: int) -> np.ndarray:
  return scipy.signal.firwin(taps, band.cutoff, width=2 * band.half_width, fs=rate)


def _radial(taps: int, band: Band, rate: int) -> np.ndarray:
  """Returns a jinc, the ideal radial low-pass filter, with the window of the separable filter."""
  line = (np.arange(taps) - (taps - 1) / 2) / rate
  radius = np.hypot(line[:, None], line)  # Never zero, because the number of taps is even.
  jinc = scipy.special.j1(2 * math.pi * band.cutoff * radius) / (math.pi * radius)
  attenuation = scipy.signal.kaiser_atten(taps, 4 * band.half_width / rate)
  window = np.kaiser(taps, scipy.signal.kaiser_beta(attenuation))
  filtered = jinc * np.outer(window, window)
  return filtered / filtered.sum()


def decompose(taps: np.ndarray) -> np.ndarray:
  """Decomposes a symmetric filter into separable ones.

  Args:
    taps: `[taps]` of a separable filter, or `[taps, taps]`, symmetric about all axes.

  Returns:
    `[2, rank, taps / 2]`: the first halves of the row and column filters, whose products sum to the
    filter.
  """
  half = len(taps) // 2
  if taps.ndim == 1:
    return np.stack((taps, taps))[:, None, :half]
  values, vectors = np.linalg.eigh(taps)
  order = np.argsort(-np.abs(values))
  kept = [i for i in order if abs(values[i]) > _RANK_TOLERANCE * abs(values[order[0]])]
  columns = vectors[:half, kept].T
  return np.stack((values[kept, None] * columns, columns))
