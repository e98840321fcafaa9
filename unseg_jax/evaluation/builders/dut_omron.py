"""DUT-OMRON as a TFDS data set."""

from collections.abc import Iterator

import tensorflow_datasets as tfds

from unseg_jax.evaluation.builders import archives

_IMAGES = "http://saliencydetection.net/dut-omron/download/DUT-OMRON-image.zip"
# The original file name has a double suffix.
_MASKS = "http://saliencydetection.net/dut-omron/download/DUT-OMRON-gt-pixelwise.zip.zip"


class DutOmron(archives.PicturesWithMasks):
  """5,168 images of salient objects, in the split `test`."""

  MANUAL_DOWNLOAD_INSTRUCTIONS = archives.instructions(_IMAGES, _MASKS)
  DESCRIPTION = (
    "The DUT-OMRON Image Dataset: 5,168 pictures with one or more salient objects and complex "
    "backgrounds, each side at most 400 pixels, with pixel-wise masks."
  )
  HOMEPAGE = "http://saliencydetection.net/dut-omron/"
  CITATION = (
    "C. Yang, L. Zhang, H. Lu, X. Ruan, M.-H. Yang: Saliency Detection via Graph-Based "
    "Manifold Ranking. CVPR 2013."
  )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
    images, masks = (archives.fetch(dl_manager, url) for url in (_IMAGES, _MASKS))
    return {
      "test": self._generate_examples(images / "DUT-OMRON-image", masks / "pixelwiseGT-new-PNG")
    }
