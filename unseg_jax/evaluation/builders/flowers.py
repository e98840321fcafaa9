"""Flowers-102 with masks as a TFDS data set; TFDS's `oxford_flowers102` has no masks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image

from unseg_jax.array_types import Num, UInt8
from unseg_jax.errors import InvalidValue
from unseg_jax.evaluation.builders import archives

_HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
_IMAGES = f"{_HOMEPAGE}102flowers.tgz"
_MASKS = f"{_HOMEPAGE}102segmentations.tgz"
_SPLITS = f"{_HOMEPAGE}setid.mat"

# The segmentations are JPEG images of the flower on this blue.
_BACKGROUND = (0, 0, 254)
# JPEG keeps flat areas within a few levels of the blue and blurs the outline over 1 or 2 pixels.
_TOLERANCE = 64


class Flowers102Segmentation(archives.PicturesWithMasks):
  """Flowers with masks: 1,020 images in `train`, 1,020 in `validation`, 6,149 in `test`."""

  MANUAL_DOWNLOAD_INSTRUCTIONS = archives.instructions(_IMAGES, _MASKS, _SPLITS)
  DESCRIPTION = (
    "The 102 Category Flower Dataset: 8,189 pictures with segmentations, converted to masks of "
    "0 and 255: background is every pixel close to the segmentations' blue."
  )
  HOMEPAGE = _HOMEPAGE
  CITATION = (
    "M.-E. Nilsback, A. Zisserman: Automated Flower Classification over a Large Number of "
    "Classes. Indian Conference on Computer Vision, Graphics and Image Processing, 2008."
  )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
    images, masks = (archives.fetch(dl_manager, url) for url in (_IMAGES, _MASKS))
    numbers = scipy.io.loadmat(archives.fetch(dl_manager, _SPLITS, extract=False))
    return {
      split: examples(images / "jpg", masks / "segmim", numbers[key].ravel())
      for split, key in (("train", "trnid"), ("validation", "valid"), ("test", "tstid"))
    }


def examples(
  images: Path, masks: Path, numbers: Num[np.ndarray, " n"]
) -> Iterator[tuple[str, dict[str, Any]]]:
  """Makes the records of the given flower numbers, which start at 1; see `archives.examples`."""
  for number in numbers:
    path = masks / f"segmim_{number:05d}.jpg"
    yield archives.example(images / f"image_{number:05d}.jpg", read_segmentation(path), path)


def read_segmentation(path: str | Path) -> UInt8[np.ndarray, "h w 1"]:
  """Reads an original segmentation as a mask.

  A pixel is background if every channel is within 64 of the blue (0, 0, 254). All other pixels are
  flower, including dark and other blue ones.

  Args:
    path: a file such as `segmim_00001.jpg`.

  Returns:
    255 for flower, 0 for background.

  Raises:
    ValueError: the file cannot be read.
  """
  try:
    with Image.open(path) as image:
      colours = np.array(image.convert("RGB"), np.int16)
  except Exception as error:  # Decoders raise errors of nearly every type for damaged files.
    raise InvalidValue(f"{path} cannot be read as a segmentation: {error}") from error
  flower = (np.abs(colours - np.array(_BACKGROUND, np.int16)) > _TOLERANCE).any(axis=-1)
  return np.where(flower, 255, 0).astype(np.uint8)[..., None]
