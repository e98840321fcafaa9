"""A trained segmenter: maps an image of any size to the probability of foreground.

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

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from unseg_jax.array_types import AnyArray, Array, Float, Int, UInt8
from unseg_jax.errors import InvalidValue
from unseg_jax.images import reading
from unseg_jax.inference import views
from unseg_jax.runtime import parallel
from unseg_jax.segmentation import unet


@dataclasses.dataclass(frozen=True)
class Segmenter:
  """A U-Net with its weights.

  Attributes:
    variables: the U-Net's `params` and `batch_stats`, on the host. They are copied to the devices
      once, on first use. Empty if an ONNX file contains the weights.
    image_size: images are resized so that their shorter side has this many pixels.
    logits: compiled `(variables, images [n, h, w, 3] uint8, sizes [n, 2]) -> [n, h, w]` float32:
      the foreground logit minus the background logit. Image i fills the first `sizes[i]` rows and
      columns.
  """

  variables: dict[str, Any]
  image_size: int
  logits: Callable[..., AnyArray]

  @classmethod
  def create(
    cls, variables: dict[str, Any], features: Sequence[int], image_size: int
  ) -> "Segmenter":
    """Creates a segmenter from the weights of a U-Net with these features."""
    return cls(variables, image_size, _logits(tuple(features)))

  @classmethod
  def restore(cls, folder: str | Path, adapted: bool = True) -> "Segmenter":
    """Restores the best checkpoint of a run, or a segmenter file, to the host.

    Args:
      folder: one of
        the run's workdir;
        a file that `save` or `convert.py --format=unet` wrote;
        an ONNX file (`*.onnx`) that `python -m unseg_jax.export` wrote, which onnxruntime runs on
        the CPU;
        the URL of one of these;
        `pretrained:NAME`, a segmenter of this package, such as `pretrained:faces`.
      adapted: for a run that adapted its segmenter: whether to restore the adapted segmenter. False
        restores the one before adaptation.

    Raises:
      FileNotFoundError: `folder` is none of these, or the run has no trained segmenter.
      ImportError: an ONNX file needs a package that is not installed.
      ValueError: the file is damaged or is not a segmenter.
    """
    return _files().restore(folder, adapted)

  @property
  def features(self) -> tuple[int, ...]:
    """The channels of each level of the U-Net, as `unet.Unet` takes them.

    Raises:
      ValueError: an ONNX file contains the weights.
    """
    if not self.variables:
      raise InvalidValue(
        "the weights of this segmenter are in an ONNX file and cannot be extracted; use the run or "
        "the *.safetensors file from which it was exported"
      )
    params = self.variables["params"]
    levels = ["inc", *unet.levels(params, "down")]
    return tuple(params[level]["conv_1"]["kernel"].shape[-1] for level in levels)

  def save(self, path: str | Path) -> None:
    """Writes the segmenter to one file, `*.safetensors`, atomically.

    Raises:
      OSError: the file cannot be written.
      ValueError: an ONNX file has the weights.
    """
    _files().save(self, path)

  def __call__(
    self, image: np.ndarray | Image.Image | str | Path, average: bool = False
  ) -> Float[np.ndarray, "h w"]:
    """Segments one image.

    Args:
      image: a file or a Pillow image, which `images.reading.as_picture` converts to upright sRGB;
        or an array `[h, w, 3]` uint8, which is taken to be upright sRGB already.
      average: whether to average over the image and its mirror image, at each of `views.SCALES`.

    Returns:
      Each pixel's probability of being foreground, float32 in [0, 1].

    Raises:
      ValueError: the array has another shape or type, or the file or Pillow image cannot be read.
    """
    picture = reading.as_picture(image)
    return self.probability(picture, picture.shape[:2], average)

  def probability(
    self, image: UInt8[np.ndarray, "_ _ 3"], size: tuple[int, int], average: bool = False
  ) -> Float[np.ndarray, "{size[0]} {size[1]}"]:
    """Segments an image; resizes the logits bilinearly to `size` (height, width)."""
    return views.combine([self._view_logits(view) for view in self.views(image, average)], size)

  def _view_logits(self, view: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """Runs the network on a view. An extremely long view is run in pieces."""
    pieces = views.pieces(view.shape[:2])
    logits = [self.small_logits([piece.of(view)])[0] for piece in pieces]
    return views.join(pieces, logits)

  def views(
    self, image: UInt8[np.ndarray, "_ _ 3"], average: bool
  ) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """The network's inputs for an image; see `views.views`."""
    return views.views(image, self.image_size, average)

  @property
  def device_count(self) -> int:
    """The number of devices that share a batch: all of this process, or 1 for ONNX files."""
    return parallel.local_device_count() if self.variables else 1

  @functools.cached_property
  def _on_every_device(self) -> dict[str, Any]:
    """The weights on every device of this process, copied on first use."""
    return parallel.on_every_device(self.variables)

  @functools.cached_property
  def _on_first_device(self) -> dict[str, Any]:
    return jax.tree.map(lambda x: x.addressable_data(0), self._on_every_device)

  def small_logits(
    self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]
  ) -> list[Float[np.ndarray, "_ _"]]:
    """Runs the network on images of one `views.padded_size`; see `start`."""
    return self.start(images)()

  def start(
    self, images: Sequence[UInt8[np.ndarray, "_ _ 3"]]
  ) -> Callable[[], list[Float[np.ndarray, "_ _"]]]:
    """Transfers images to the devices and starts the network, without waiting for it.

    The batch is split over all devices if they divide its size; otherwise it runs on one.

    Args:
      images: images of one `views.padded_size`, as `views.views` returns them.

    Returns:
      A function that waits for the network and returns the float32 logits of each image.
    """
    sizes = np.array([image.shape[:2] for image in images], np.int32)
    batch = np.zeros((len(images), *views.padded_size(images[0]), 3), np.uint8)
    for row, image in zip(batch, images, strict=True):
      row[: image.shape[0], : image.shape[1]] = image
    if not self.variables:  # An ONNX file contains the weights and runs on the host.
      logits = self.logits(self.variables, batch, sizes)
    elif len(images) % self.device_count == 0:
      logits = self.logits(self._on_every_device, *parallel.spread((batch, sizes)))
    else:
      logits = self.logits(self._on_first_device, *jax.device_put((batch, sizes)))
    return lambda: [row[:h, :w] for row, (h, w) in zip(jax.device_get(logits), sizes, strict=True)]


def check_levels(setting: str, features: Sequence[int]) -> None:
  """Raises a ValueError that names the setting if the U-Net has too many levels for the padding."""
  if views.PADDED_TO % 2 ** (len(features) - 1):
    raise InvalidValue(f"{setting}={tuple(features)}: {len(features)} levels, expected at most 6")


def _files() -> types.ModuleType:
  """Imported only to read or write a file: computing does not need its libraries."""
  return importlib.import_module("unseg_jax.inference.segmenter_files")


@functools.cache
def _logits(features: tuple[int, ...]) -> Callable[..., Array]:
  """Returns the compiled function that all segmenters of the same features share."""
  return parallel.jit(network(features))


def network(features: tuple[int, ...]) -> Callable[..., Array]:
  """Returns the function that `Segmenter.logits` compiles for a U-Net of these features.

  Raises:
    ValueError: the U-Net has too many levels for the padding of `views.PADDED_TO` pixels.
  """
  unet_of_features = unet.Unet(features)
  check_levels("a U-Net of features", features)

  def logits(
    variables: Mapping[str, Any], images: UInt8[Array, "n h w 3"], sizes: Int[Array, "n 2"]
  ) -> Float[Array, "n h w"]:
    scaled = images.astype(jnp.float32) / 127.5 - 1.0
    both = cast(Array, unet_of_features.apply(variables, scaled, sizes=sizes))
    return both[..., 1] - both[..., 0]

  return logits
