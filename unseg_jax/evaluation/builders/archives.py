"""Shared code of the TFDS builders: finds the original archives and pairs their files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from unseg_jax.array_types import UInt8
from unseg_jax.errors import InvalidValue
from unseg_jax.evaluation import folders
from unseg_jax.evaluation.source import check_same_size


class PicturesWithMasks(
  tfds.core.GeneratorBasedBuilder,
  skip_registration=True,  # type: ignore[call-arg]  # TFDS ships no types.
):
  """A data set of images with masks; subclasses define its description and the file locations.

  Attributes:
    DESCRIPTION: the content and number of the images.
    HOMEPAGE: the authors' page.
    CITATION: the paper.
  """

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES: ClassVar = {"1.0.0": "Initial release."}
  DESCRIPTION: ClassVar[str]
  HOMEPAGE: ClassVar[str]
  CITATION: ClassVar[str]

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.DESCRIPTION,
      features=features(),
      homepage=self.HOMEPAGE,
      citation=self.CITATION,
    )

  def _generate_examples(self, images: Path, masks: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    return examples(images, masks)


def features() -> tfds.features.FeaturesDict:
  """Returns the features of a record.

  `image` is the original file, RGB when decoded. `mask` [H, W, 1] is the first channel of the
  original mask, in 0 to 255; pixels above half of full scale are foreground. `filename` is the
  image's file name.
  """
  return tfds.features.FeaturesDict(
    {
      "image": tfds.features.Image(),
      "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
      "filename": tfds.features.Text(),
    }
  )


def fetch(dl_manager: tfds.download.DownloadManager, url: str, extract: bool = True) -> Path:
  """Finds a file of the original release in TFDS's folder for manual downloads, or downloads it.

  A file in that folder under its original name is never downloaded. TFDS verifies downloads with
  known checksums.

  Args:
    dl_manager: TFDS's download manager.
    url: the official URL; its last part is the original file name.
    extract: whether the file is an archive to extract.

  Returns:
    The file, or the folder of the extracted archive.

  Raises:
    OSError: the file is missing and the download failed.
  """
  try:
    by_hand = dl_manager.manual_dir / url.rsplit("/", 1)[1]
  except AssertionError:  # TFDS raises it if the folder is missing or empty.
    by_hand = None
  if by_hand is not None and by_hand.exists():
    return Path(dl_manager.extract(by_hand) if extract else by_hand)
  try:
    return Path((dl_manager.download_and_extract if extract else dl_manager.download)(url))
  except Exception as error:  # Downloads raise errors of nearly every type.
    raise OSError(
      f"{url} could not be downloaded ({error}). Obtain the file elsewhere and put it, unextracted "
      "and under its original name, into TFDS's folder for manual downloads, by default "
      "downloads/manual in the folder of the prepared data sets; then run again."
    ) from error


def instructions(*urls: str) -> str:
  """Returns instructions that list the files for TFDS's folder for manual downloads."""
  files = "".join(f"\n  {url.rsplit('/', 1)[1]}, from {url}" for url in urls)
  return (
    "The archives are downloaded from their official addresses. If these do not answer, put "
    f"the files into this folder, unextracted and under their original names:{files}"
  )


def first_channel(path: str | Path) -> UInt8[np.ndarray, "h w 1"]:
  """Reads the first channel of an 8-bit mask as stored.

  Args:
    path: a 1-bit, grey, palette or colour mask.

  Returns:
    The channel, in 0 to 255.

  Raises:
    ValueError: the file cannot be read.
  """
  try:
    with Image.open(path) as image:
      return np.array(image.convert("RGB").getchannel(0))[..., None]
  except Exception as error:  # Decoders raise errors of nearly every type for damaged files.
    raise InvalidValue(f"{path} cannot be read as a mask: {error}") from error


def example(
  image: Path, mask: UInt8[np.ndarray, "h w 1"], mask_name: str | Path
) -> tuple[str, dict[str, Any]]:
  """Makes one record.

  Args:
    image: the image file, which is stored unchanged.
    mask: the mask, of the image's size.
    mask_name: the name of the mask in error messages.

  Returns:
    The stem of the image, as TFDS's key, and the record.

  Raises:
    ValueError: the image is unreadable, or the sizes of image and mask differ.
  """
  try:
    # The EXIF orientation is ignored, as TFDS does when it decodes the image.
    with Image.open(image) as opened:
      stored = np.asarray(opened)
  except Exception as error:
    raise InvalidValue(f"{image} cannot be read as a picture: {error}") from error
  check_same_size(stored, mask[..., 0], image, mask_name)
  return image.stem, {"image": str(image), "mask": mask, "filename": image.name}


def examples(images: Path, masks: Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """Makes the records of two folders whose files pair by stem.

  Args:
    images: the folder of images.
    masks: the folder of masks.

  Yields:
    The results of `example`.

  Raises:
    FileNotFoundError: a folder is missing or empty.
    ValueError: files are unpaired or unreadable, or the sizes of an image and its mask differ.
  """
  for image, mask in folders.paired(images, masks):
    yield example(image, first_channel(mask), mask)
