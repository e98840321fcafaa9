"""DUTS as a TFDS data set."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from unseg_jax.evaluation.builders import archives

_URLS = {
  "train": "http://saliencydetection.net/duts/download/DUTS-TR.zip",
  "test": "http://saliencydetection.net/duts/download/DUTS-TE.zip",
}

# Archives older than an erratum of 2018 hold two masks for five images; the listed ones are wrong.
_WITHDRAWN = (
  "ILSVRC2012_test_00036002.jpg",
  "sun_bcogaqperiljqupq.jpg",
  "ILSVRC2014_train_00023530.png",
  "n01532829_13482.png",
  "n04442312_17818.png",
)


class Duts(archives.PicturesWithMasks):
  """Images of salient objects: 10,553 in `train` (DUTS-TR) and 5,019 in `test` (DUTS-TE)."""

  MANUAL_DOWNLOAD_INSTRUCTIONS = archives.instructions(*_URLS.values())
  DESCRIPTION = (
    "DUTS: pictures from ImageNet and SUN with pixel-wise masks of their salient objects; "
    "10,553 for training (DUTS-TR) and 5,019 for testing (DUTS-TE)."
  )
  HOMEPAGE = "http://saliencydetection.net/duts/"
  CITATION = (
    "L. Wang, H. Lu, Y. Wang, M. Feng, D. Wang, B. Yin, X. Ruan: Learning to Detect Salient "
    "Objects with Image-Level Supervision. CVPR 2017."
  )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
    generators = {}
    for split, url in _URLS.items():
      part = Path(url).stem
      root = archives.fetch(dl_manager, url) / part
      generators[split] = self._generate_examples(root / f"{part}-Image", root / f"{part}-Mask")
    return generators

  def _generate_examples(self, images: Path, masks: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    drop_wrong_masks(masks)
    return archives.examples(images, masks)


def drop_wrong_masks(masks: Path) -> None:
  """Deletes the masks withdrawn by the authors' erratum if an archive has both versions.

  Args:
    masks: the extracted folder of masks.
  """
  for name in _WITHDRAWN:
    path = masks / name
    if len(list(masks.glob(f"{path.stem}.*"))) > 1:
      path.unlink(missing_ok=True)
