"""A trained segmenter: any picture in, the probability of foreground out.

In two lines:

    segmenter = Segmenter.restore("runs/dcgan_faces")
    probability = segmenter("photograph.jpg")  # [H, W]
"""

import dataclasses
import functools
import importlib
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from PIL import Image

from unseg_jax.array_types import AnyArray, Array, Float, Int, UInt8
from unseg_jax.images import reading
from unseg_jax.runtime import parallel
from unseg_jax.segmentation import unet


@dataclasses.dataclass(frozen=True)
class Segmenter:
  """A U-Net with its weights.

  Attributes:
    variables: the U-Net's `params` and `batch_stats`; empty if an ONNX file has its weights.
    image_size: pictures are resized so that their shorter side has this number of pixels.
    logits: compiled `(variables, images [n, h, w, 3] uint8, sizes [n, 2]) -> [n, h, w]` float32,
      the foreground's logit minus the background's; image i fills the first `sizes[i]` rows and
      columns.
  """

  variables: dict[str, Any]
  image_size: int
  logits: Callable[..., AnyArray]

  @classmethod
  def create(
    cls, variables: dict[str, Any], features: Sequence[int], image_size: int
  ) -> "Segmenter":
    """Makes a segmenter from the weights of a U-Net of these features."""
    return cls(variables, image_size, _logits(tuple(features)))

  @classmethod
  def restore(cls, folder: str | Path, adapted: bool = True) -> "Segmenter":
    """Restores the best checkpoint of a run, or a segmenter's file.

    Args:
      folder: the run's workdir; a file that `save` or `convert.py --format=unet` wrote; an ONNX
        file that `python -m unseg_jax.export` wrote, `*.onnx`, which onnxruntime then runs on the
        processor; the URL of one of these; or `pretrained:NAME` of the segmenters that the
        package ships: `pretrained:faces`.
      adapted: whether to take, of a run that adapted its segmenter to pictures, the adapted one;
        else the one before.

    Raises:
      FileNotFoundError: it is none of these, or the run holds no trained segmenter.
      ImportError: an ONNX file needs what is not installed.
      ValueError: the file is damaged or holds something else.
    """
    return _files().restore(folder, adapted)

  @property
  def features(self) -> tuple[int, ...]:
    """The channels of each level of the U-Net, as `unet.Unet` takes them.

    Raises:
      ValueError: an ONNX file has the weights.
    """
    if not self.variables:
      raise ValueError(
        "the weights of this segmenter are in an ONNX file and cannot be taken out; use the run or "
        "the *.safetensors file that it was exported from"
      )
    params = self.variables["params"]
    levels = ["inc", *unet.levels(params, "down")]
    return tuple(params[level]["conv_1"]["kernel"].shape[-1] for level in levels)

  def save(self, path: str | Path) -> None:
    """Writes the segmenter to one file, `*.safetensors`, whole or not at all.

    Raises:
      OSError: the file cannot be written.
      ValueError: an ONNX file has the weights.
    """
    _files().save(self, path)

  def __call__(
    self, image: np.ndarray | Image.Image | str | Path, average: bool = False
  ) -> Float[np.ndarray, "h w"]:
    """Segments one picture.

    Args:
      image: a file or a Pillow image, which are read alike (`images.reading.read_picture`): upright
        and as sRGB; or an array `[h, w, 3]` uint8, taken to be both.
      average: whether to average over the mirrored picture and `SCALES`.

    Returns:
      Each pixel's probability of being foreground, float32 in [0, 1].

    Raises:
      ValueError: the array is no such picture, or the file or image cannot be read as one.
    """
    picture = reading.as_picture(image)
    return self.probability(picture, picture.shape[:2], average)

  def probability(
    self, image: UInt8[np.ndarray, "_ _ 3"], size: tuple[int, int], average: bool = False
  ) -> Float[np.ndarray, "{size[0]} {size[1]}"]:
    """Segments a picture and resizes the logits to `size` (height, width), bilinearly."""
    return combine([self.small_logits([view])[0] for view in self.views(image, average)], size)

  def views(
    self, image: UInt8[np.ndarray, "_ _ 3"], average: bool
  ) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """What the network sees of a picture; `combine` takes the logits of these views.

    Args:
      image: the picture.
      average: whether to return several views: at each of `SCALES` the picture, followed by its
        mirror image; else the only view is the picture at the training's size.
    """
    if not average:
      return [resize_shorter_side(image, self.image_size)]
    scaled = [resize_shorter_side(image, round(scale * self.image_size)) for scale in SCALES]
    return [view for small in scaled for view in (small, small[:, ::-1])]

  @property
  def device_count(self) -> int:
    """The number of devices over which a batch is spread: all of this process; 1 for ONNX files."""
    return parallel.local_device_count() if self.variables else 1

  @functools.cached_property
  def _on_every_device(self) -> dict[str, Any]:
    return parallel.on_every_device(self.variables)

  def small_logits(
    self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]
  ) -> list[Float[np.ndarray, "_ _"]]:
    """Runs the network on pictures of one `padded_size`, on all devices if they split over them.

    Args:
      images: as `resize_shorter_side` returns them.

    Returns:
      The logits of each, in float32.
    """
    sizes = np.array([image.shape[:2] for image in images], np.int32)
    batch = np.zeros((len(images), *padded_size(images[0]), 3), np.uint8)
    for row, image in zip(batch, images, strict=True):
      row[: image.shape[0], : image.shape[1]] = image
    devices = self.device_count
    if devices > 1 and len(images) % devices == 0:
      spread = parallel.spread((batch, sizes))
      logits = np.asarray(self.logits(self._on_every_device, *spread))
    else:
      logits = np.asarray(self.logits(self.variables, batch, sizes))
    return [row[:h, :w] for row, (h, w) in zip(logits, sizes, strict=True)]


def _files() -> types.ModuleType:
  """Imported when a file is read or written: what only computes needs none of its libraries."""
  return importlib.import_module("unseg_jax.inference.segmenter_files")


SCALES = (0.75, 1.0, 1.5)  # Of the training's size, which an average is taken over.

# A network is compiled for each shape that it sees. Pictures are therefore padded to multiples of
# this; the network ignores the padding.
PADDED_TO = 32


def padded_size(image: UInt8[np.ndarray, "h w 3"]) -> tuple[int, int]:
  """The (height, width) to which a small picture is padded."""
  height, width = (-(-side // PADDED_TO) * PADDED_TO for side in image.shape[:2])
  return height, width


@functools.cache
def _logits(features: tuple[int, ...]) -> Callable[..., Array]:
  """One compiled function for all segmenters of the same features."""
  network = unet.Unet(features)
  if PADDED_TO % 2 ** (len(features) - 1):
    raise ValueError(f"a U-Net of {len(features)} levels: expected at most 6")

  def logits(
    variables: Mapping[str, Any], images: UInt8[Array, "n h w 3"], sizes: Int[Array, "n 2"]
  ) -> Float[Array, "n h w"]:
    scaled = images.astype(jnp.float32) / 127.5 - 1.0
    both = cast(Array, network.apply(variables, scaled, sizes=sizes))
    return both[..., 1] - both[..., 0]

  return parallel.jit(logits)


def combine(
  logits: Sequence[Float[np.ndarray, "_ _"]], size: tuple[int, int]
) -> Float[np.ndarray, "{size[0]} {size[1]}"]:
  """The probability of foreground, float32: the mean over the logits of all `views`."""
  if len(logits) == 1:
    return foreground(logits[0], size)
  upright = (view[:, ::-1] if number % 2 else view for number, view in enumerate(logits))
  return np.mean([foreground(view, size) for view in upright], axis=0)


def foreground(
  logits: Float[np.ndarray, "_ _"], size: tuple[int, int]
) -> Float[np.ndarray, "{size[0]} {size[1]}"]:
  """Resizes logits to `size` and returns the probability of foreground, float32.

  The softmax of two logits depends on their difference alone, and resizing is linear.
  """
  with np.errstate(over="ignore"):  # 1 / (1 + infinity) is the right 0.
    return 1 / (1 + np.exp(-resize_bilinear(logits, size)))


def resize_shorter_side(image: UInt8[np.ndarray, "_ _ 3"], size: int) -> UInt8[np.ndarray, "_ _ 3"]:
  """Resizes a picture so that its shorter side has `size` pixels (Pillow's bilinear)."""
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


def resize_bilinear(
  values: Float[np.ndarray, "_ _"], size: tuple[int, int]
) -> Float[np.ndarray, "{size[0]} {size[1]}"]:
  """Resizes to `size` (height, width): bilinear, half-pixel centres, not antialiased."""
  if values.shape == tuple(size):
    return values
  # Two taps per axis. Not as products of matrices: for these small ones, the
  # threads of NumPy's BLAS wait for each other in loops that take the processor from the network.
  for axis in (1, 0):
    values = _resize_axis(values, axis, size[axis])
  return values


def _resize_axis(values: np.ndarray, axis: int, new: int) -> np.ndarray:
  before, after, share = _half_pixel(values.shape[axis], new)
  start = values.take(before, axis)
  resized = values.take(after, axis)
  resized -= start
  resized *= share if axis else share[:, None]
  resized += start
  return resized


@functools.lru_cache(maxsize=64)
def _half_pixel(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """For each of `new` points its two neighbours among `old`, and the share of the second."""
  position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
  before = position.astype(np.intp)
  return before, np.minimum(before + 1, old - 1), (position - before).astype(np.float32)
