"""ECSSD as a TFDS data set."""

from collections.abc import Iterator

import tensorflow_datasets as tfds

from unseg_jax.evaluation.builders import archives

_IMAGES = "http://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/data/ECSSD/images.zip"
_MASKS = "http://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/data/ECSSD/ground_truth_mask.zip"


class Ecssd(archives.PicturesWithMasks):
  """1,000 images of salient objects on complex backgrounds, in the split `test`."""

  MANUAL_DOWNLOAD_INSTRUCTIONS = archives.instructions(_IMAGES, _MASKS)
  DESCRIPTION = (
    "The Extended Complex Scene Saliency Dataset: 1,000 pictures whose backgrounds have "
    "structure, with masks of their salient objects."
  )
  HOMEPAGE = "https://www.cse.cuhk.edu.hk/leojia/projects/hsaliency/dataset.html"
  CITATION = (
    "J. Shi, Q. Yan, L. Xu, J. Jia: Hierarchical Image Saliency Detection on Extended CSSD. "
    "IEEE Transactions on Pattern Analysis and Machine Intelligence, 2016."
  )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
    images, masks = (archives.fetch(dl_manager, url) for url in (_IMAGES, _MASKS))
    return {"test": self._generate_examples(images / "images", masks / "ground_truth_mask")}
