"""What the TFDS builders here share: finding the original archives and pairing what they hold."""

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
  """A data set of pictures with masks; a subclass says what it is and where its files lie.

  Attributes:
    DESCRIPTION: what the pictures show, and their number.
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
  """What a record holds.

  `image` is the original file, RGB when decoded; `mask` [H, W, 1] holds the first channel of the
  original mask in 0 to 255, where a pixel above half counts as foreground; `filename` is the
  picture's.
  """
  return tfds.features.FeaturesDict(
    {
      "image": tfds.features.Image(),
      "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
      "filename": tfds.features.Text(),
    }
  )


def fetch(dl_manager: tfds.download.DownloadManager, url: str, extract: bool = True) -> Path:
  """Finds a file of the original release: in TFDS's folder for manual downloads, or at its source.

  A file that lies in that folder under its original name is never downloaded. TFDS verifies a
  download where it knows the checksum.

  Args:
    dl_manager: TFDS's.
    url: the official address; its last part is the file's original name.
    extract: whether it is an archive, to be extracted.

  Returns:
    The file, or the folder that it was extracted to.

  Raises:
    OSError: the file is missing and the download failed.
  """
  try:
    by_hand = dl_manager.manual_dir / url.rsplit("/", 1)[1]
  except AssertionError:  # TFDS says in this way that the folder is missing or empty.
    by_hand = None
  if by_hand is not None and by_hand.exists():
    return Path(dl_manager.extract(by_hand) if extract else by_hand)
  try:
    return Path((dl_manager.download_and_extract if extract else dl_manager.download)(url))
  except Exception as error:  # Downloads fail with errors of nearly every type.
    raise OSError(
      f"{url} could not be downloaded ({error}). Get the file elsewhere and put it, unextracted "
      "and under its original name, into TFDS's folder for manual downloads, by default "
      "downloads/manual in the folder of the prepared data sets; then run again."
    ) from error


def instructions(*urls: str) -> str:
  """Says which files TFDS's folder for manual downloads may hold instead of a download."""
  files = "".join(f"\n  {url.rsplit('/', 1)[1]}, from {url}" for url in urls)
  return (
    "The archives are downloaded from their official addresses. Where these do not answer, put "
    f"the files into this folder, unextracted and under their original names:{files}"
  )


def first_channel(path: str | Path) -> UInt8[np.ndarray, "h w 1"]:
  """Reads the first channel of an 8-bit mask as it is stored.

  Args:
    path: a mask of 1 bit, grey, with a palette, or in colour.

  Returns:
    The channel, in 0 to 255.

  Raises:
    ValueError: the file cannot be read.
  """
  try:
    with Image.open(path) as image:
      return np.array(image.convert("RGB").getchannel(0))[..., None]
  except Exception as error:  # Given damaged files, decoders raise errors of nearly every type.
    raise InvalidValue(f"{path} cannot be read as a mask: {error}") from error


def example(
  image: Path, mask: UInt8[np.ndarray, "h w 1"], mask_name: str | Path
) -> tuple[str, dict[str, Any]]:
  """Makes one record.

  Args:
    image: the picture's file, which is kept as it is.
    mask: of the picture's size.
    mask_name: what an error calls it.

  Returns:
    TFDS's key, the picture's stem, and the record.

  Raises:
    ValueError: the picture cannot be read, or the mask has another size.
  """
  try:
    # As stored, without its EXIF orientation: this is how TFDS decodes it.
    with Image.open(image) as opened:
      stored = np.asarray(opened)
  except Exception as error:
    raise InvalidValue(f"{image} cannot be read as a picture: {error}") from error
  check_same_size(stored, mask[..., 0], image, mask_name)
  return image.stem, {"image": str(image), "mask": mask, "filename": image.name}


def examples(images: Path, masks: Path) -> Iterator[tuple[str, dict[str, Any]]]:
  """Makes the records of two folders whose files pair by stem.

  Args:
    images: the pictures.
    masks: their masks.

  Yields:
    What `example` returns.

  Raises:
    FileNotFoundError, ValueError: a folder is missing, files are unpaired, unreadable, or of
      different sizes.
  """
  for image, mask in folders.paired(images, masks):
    yield example(image, first_channel(mask), mask)
