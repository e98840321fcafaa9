"""DUT-OMRON as a TFDS data set."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from unseg_jax.evaluation.builders import archives

_HOMEPAGE = "http://saliencydetection.net/dut-omron/"
_IMAGES = "http://saliencydetection.net/dut-omron/download/DUT-OMRON-image.zip"
# The suffix is doubled in the original.
_MASKS = "http://saliencydetection.net/dut-omron/download/DUT-OMRON-gt-pixelwise.zip.zip"


class DutOmron(tfds.core.GeneratorBasedBuilder):
  """5,168 pictures of salient objects; the split is `test`."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES: ClassVar = {"1.0.0": "Initial release."}
  MANUAL_DOWNLOAD_INSTRUCTIONS = archives.instructions(_IMAGES, _MASKS)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=(
        "The DUT-OMRON Image Dataset: 5,168 pictures with one or more salient objects and complex "
        "backgrounds, each side at most 400 pixels, with pixel-wise masks."
      ),
      features=archives.features(),
      homepage=_HOMEPAGE,
      citation=(
        "C. Yang, L. Zhang, H. Lu, X. Ruan, M.-H. Yang: Saliency Detection via Graph-Based "
        "Manifold Ranking. CVPR 2013."
      ),
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
    images, masks = (archives.fetch(dl_manager, url) for url in (_IMAGES, _MASKS))
    return {
      "test": self._generate_examples(images / "DUT-OMRON-image", masks / "pixelwiseGT-new-PNG")
    }

  def _generate_examples(self, images: Path, masks: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    return archives.examples(images, masks)
