"""A trained segmenter: any picture in, the probability of foreground out.

segmenter = Segmenter.restore("runs/dcgan_faces")
probability = segmenter("photograph.jpg")  # [H, W]
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from unseg_jax import checkpoints, parallel, workdir
from unseg_jax.data import folder
from unseg_jax.unet import Unet


@dataclasses.dataclass(frozen=True)
class Segmenter:
  """A U-Net with its weights.

  Attributes:
    variables: the U-Net's `params` and `batch_stats`.
    image_size: pictures are resized so that their shorter side has so many pixels.
    logits: compiled `(variables, images [N, H, W, 3] float32 in [-1, 1]) -> [N, H, W, 2]`.
  """

  variables: dict[str, Any]
  image_size: int
  logits: Callable[..., jax.Array]

  @classmethod
  def create(cls, variables: dict[str, Any], widths: tuple[int, ...], image_size: int):
    """Makes a segmenter from the weights of a U-Net of these widths."""
    return cls(variables, image_size, _logits(tuple(widths)))

  @classmethod
  def restore(cls, folder: str | Path) -> "Segmenter":
    """Restores the best checkpoint of a run.

    Args:
      folder: the run's workdir.

    Raises:
      FileNotFoundError: it is no workdir, or holds no trained segmenter.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists():
      raise FileNotFoundError(
        f"{folder} is not the workdir of a run: it has no config.json. Expected the --workdir of "
        "`python -m unseg_jax.main`, by default runs/NAME."
      )
    config = workdir.read_json(folder / "config.json")
    variables = checkpoints.restore_best(folder / "train" / "checkpoints")
    return cls.create(variables, config["train"]["widths"], config["train"]["image_size"])

  def __call__(self, image: np.ndarray | Image.Image | str | Path) -> np.ndarray:
    """Segments one picture.

    Args:
      image: `[H, W, 3]` uint8, a Pillow image or a file.

    Returns:
      `[H, W]` float32: each pixel's probability of being foreground.
    """
    if isinstance(image, (str, Path)):
      image = folder.read_picture(Path(image))
    elif isinstance(image, Image.Image):
      image = np.asarray(image.convert("RGB"))
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
      raise ValueError(f"expected a picture [H, W, 3] of uint8, got {image.shape} {image.dtype}")
    return self.probability(image, image.shape[:2])

  def probability(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Segments `[H, W, 3]` uint8 and resizes the logits to `size` (height, width), bilinearly."""
    small = resize_shorter_side(image, self.image_size)
    logits = self.logits(self.variables, small[None].astype(np.float32) / 127.5 - 1.0)
    logits = resize_bilinear(np.asarray(logits[0]), size)
    # The softmax of two logits, channel 1.
    return (1.0 / (1.0 + np.exp(logits[..., 0] - logits[..., 1]))).astype(np.float32)


@functools.cache
def _logits(widths: tuple[int, ...]) -> Callable[..., jax.Array]:
  """One compiled function for all segmenters of the same widths."""
  return parallel.jit(Unet(widths).apply)


def resize_shorter_side(image: np.ndarray, size: int) -> np.ndarray:
  """Resizes `[H, W, 3]` uint8 so that its shorter side has `size` pixels (Pillow's bilinear)."""
  height, width = image.shape[:2]
  shorter = min(height, width)
  if shorter == size:
    return image
  # Truncated, as torchvision's Resize does.
  new_height, new_width = (
    size if side == shorter else int(size * side / shorter) for side in (height, width)
  )
  resized = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
  return np.asarray(resized)


def resize_bilinear(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes `[H, W, C]` to `[*size, C]`: bilinear, half-pixel centres, not antialiased."""
  if values.shape[:2] == tuple(size):
    return values
  rows, columns = (_half_pixel(old, new) for old, new in zip(values.shape[:2], size, strict=True))
  low, high, weight = rows
  weight = weight[:, None, None]
  values = values[low] * (1 - weight) + values[high] * weight
  low, high, weight = columns
  weight = weight[None, :, None]
  return values[:, low] * (1 - weight) + values[:, high] * weight


def _half_pixel(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
  low = np.floor(position).astype(int)
  return low, np.minimum(low + 1, old - 1), (position - low).astype(np.float32)
