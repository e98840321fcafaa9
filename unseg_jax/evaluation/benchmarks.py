"""The paper's five data sets: their locations, and pairs of images and masks from them."""

import dataclasses
import importlib
from pathlib import Path

import tensorflow_datasets as tfds

from unseg_jax.errors import InvalidValue
from unseg_jax.evaluation import folders, tfds_source
from unseg_jax.evaluation.source import Source
from unseg_jax.runtime import host_tensorflow
from unseg_jax.storage import places


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """One of the paper's data sets.

  Attributes:
    name: its name in the config.
    images: the folder of images under the data root, as documented by the original implementation.
    masks: the folder of masks under the data root.
    crop: whether the paper evaluates only the central squares.
    module: the module that registers the TFDS data set.
    tfds_name: the TFDS data set with the same images.
    tfds_split: its split.
    tfds_image: its key for images.
    tfds_mask: its key for masks.
  """

  name: str
  images: str
  masks: str
  crop: bool
  module: str
  tfds_name: str
  tfds_split: str = "test"
  tfds_image: str = "image"
  tfds_mask: str = "mask"


BENCHMARKS = {
  benchmark.name: benchmark
  for benchmark in (
    Benchmark(
      "cub",
      images="CUB_200_2011/test_images",
      masks="CUB_200_2011/test_segmentations",
      crop=True,
      # TFDS keeps the grey levels of the segmentations, 0 to 255 in steps of 51 (5 annotators).
      module="tensorflow_datasets",
      tfds_name="caltech_birds2011",
      tfds_mask="segmentation_mask",
    ),
    Benchmark(
      "flowers",
      # These masks are white on black. The original release instead has flowers on blue, which the
      # TFDS builder converts.
      images="Flowers/test_images",
      masks="Flowers/test_segmentations",
      crop=True,
      module="unseg_jax.evaluation.builders.flowers",
      tfds_name="flowers102_segmentation",
    ),
    Benchmark(
      "dut_omron",
      images="DUT_OMRON/DUT-OMRON-image",
      masks="DUT_OMRON/pixelwiseGT-new-PNG",
      crop=False,
      module="unseg_jax.evaluation.builders.dut_omron",
      tfds_name="dut_omron",
    ),
    Benchmark(
      "duts",
      images="DUTS/DUTS-TE/DUTS-TE-Image",
      masks="DUTS/DUTS-TE/DUTS-TE-Mask",
      crop=False,
      module="unseg_jax.evaluation.builders.duts",
      tfds_name="duts",
    ),
    Benchmark(
      "ecssd",
      images="ECSSD/images",
      masks="ECSSD/ground_truth_mask",
      crop=False,
      module="unseg_jax.evaluation.builders.ecssd",
      tfds_name="ecssd",
    ),
  )
}


def get(name: str) -> Benchmark:
  """Returns a benchmark by name.

  Raises:
    ValueError: the benchmark does not exist.
  """
  if name not in BENCHMARKS:
    raise InvalidValue(f"there is no benchmark {name!r}; expected one of {', '.join(BENCHMARKS)}.")
  return BENCHMARKS[name]


def open_pairs(benchmark: Benchmark, data_root: str | Path) -> Source:
  """Opens a benchmark from its folders if either exists, otherwise as a prepared TFDS data set.

  Args:
    benchmark: one of `BENCHMARKS`.
    data_root: the parent of the benchmark's folders or of prepared TFDS data sets.

  Returns:
    The pairs, not cropped.

  Raises:
    FileNotFoundError: neither form exists, or only one of the two folders does.
    ValueError: files in the folders are unpaired. While reading the pairs: a file is unreadable, or
      a mask and its image differ in size.
  """
  root = places.path(data_root)
  images, masks = root / benchmark.images, root / benchmark.masks
  if images.is_dir() or masks.is_dir():
    return folders.open_pairs(images, masks)
  if any((root / benchmark.tfds_name).glob("*/dataset_info.json")):
    return tfds_source.open_pairs(
      benchmark.tfds_name,
      benchmark.tfds_split,
      benchmark.tfds_image,
      benchmark.tfds_mask,
      data_dir=root,
    )
  raise FileNotFoundError(
    f"the benchmark {benchmark.name} is not in data_root, {root}. Either put its pictures into "
    f"{images} and its masks, under the same stems, into {masks}; or prepare it with TFDS: "
    f'python -c "from unseg_jax.evaluation import benchmarks; '
    f"benchmarks.prepare('{benchmark.name}', '{root}')\"."
  )


def prepare(name: str, data_root: str | Path) -> None:
  """Downloads a benchmark and prepares it with TFDS.

  Archives in `data_root/downloads/manual` with their original names are not downloaded again. CUB
  is TFDS's `caltech_birds2011`, which always downloads and needs `opencv-python`. TFDS encodes
  images with TensorFlow, which the extra `tensorflow` installs.

  Args:
    name: one of `BENCHMARKS`.
    data_root: the folder for prepared data sets.

  Raises:
    ValueError: the benchmark does not exist, or its files are inconsistent.
    ImportError: TensorFlow is not installed.
    OSError: a download failed.
  """
  benchmark = get(name)
  host_tensorflow.import_tensorflow("preparing a benchmark with TFDS")
  importlib.import_module(benchmark.module)
  # ArrayRecord is the TFDS format that can be read without TensorFlow.
  builder = tfds.builder(
    benchmark.tfds_name, data_dir=places.path(data_root), file_format="array_record"
  )
  builder.download_and_prepare()
