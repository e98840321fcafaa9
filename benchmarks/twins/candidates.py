"""Pairs made as in the reference implementation, with filters of scikit-image per image."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import skimage.measure
import torch
from PIL import Image
from torch import nn

from twins.search import grey
from unseg_jax.synthesis import records


def candidates(
  generator: nn.Module, config: Any, direction: np.ndarray, latents: torch.Tensor
) -> list[tuple[np.ndarray, np.ndarray] | None]:
  """Makes both images as a batch; then mask, components, area and histogram per image.

  Returns the uint8 image and the mask of each candidate, or None for a rejected one.
  """
  with torch.no_grad():
    images = generator(latents)
    shifted = generator(latents + config.shift * torch.tensor(direction))
    found = (grey(shifted) > grey(images)).numpy()
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
  results = []
  for image, values, mask in zip(pixels, shifted.numpy(), found, strict=True):
    labels = skimage.measure.label(mask, connectivity=2)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    mask = (areas > config.components * areas.max())[labels]
    low, high = config.area
    accepted = low <= mask.mean() <= high and _histogram_maxima(values, config) >= (
      config.histogram_maxima
    )
    results.append((image, mask) if accepted else None)
  return results


def _histogram_maxima(values: np.ndarray, config: Any) -> int:
  counts, _ = np.histogram(values, bins=config.histogram_bins, range=(-1, 1))
  smooth = np.convolve(counts, np.ones(3, int), mode="same")
  padded = np.pad(smooth, 1, constant_values=-1)
  return int(((smooth >= padded[:-2]) & (smooth >= padded[2:])).sum())


def write_data_set(
  generator: nn.Module, config: Any, direction: np.ndarray, pairs: int, folder: Path
) -> None:
  """Makes, encodes and writes pairs, one batch of `config.chunk` after the other."""
  kept = 0
  while kept < pairs:
    latents = torch.randn(config.chunk, *direction.shape[1:])
    for found in candidates(generator, config, direction, latents):
      if found is not None and kept < pairs:
        _write_pair(folder, kept, *found)
        kept += 1


def _write_pair(folder: Path, number: int, image: np.ndarray, mask: np.ndarray) -> None:
  for array, image_format, options in (
    (image, "JPEG", {"quality": records.JPEG_QUALITY, "subsampling": 0}),
    (np.where(mask, 255, 0).astype(np.uint8), "PNG", {}),
  ):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, image_format, **options)
    (folder / f"{number}.{image_format.lower()}").write_bytes(buffer.getvalue())
