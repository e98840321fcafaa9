"""Benchmarks open from the documented folders or from TFDS; errors name bad files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from unseg_jax import errors
from unseg_jax.evaluation import benchmarks, tfds_source, unlabelled


def save_pair(images, masks, name, size=(6, 4), seed=0, mask_size=None):
  images.mkdir(parents=True, exist_ok=True)
  masks.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(seed)
  image = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
  width, height = mask_size or size
  mask = rng.choice([0, 51, 204, 255], (height, width)).astype(np.uint8)
  Image.fromarray(image).save(images / f"{name}.png")
  Image.fromarray(mask).save(masks / f"{name}.png")
  return image, mask > 127


@pytest.mark.parametrize(
  ("name", "images", "masks", "crop"),
  [
    ("cub", "CUB_200_2011/test_images", "CUB_200_2011/test_segmentations", True),
    ("flowers", "Flowers/test_images", "Flowers/test_segmentations", True),
    ("dut_omron", "DUT_OMRON/DUT-OMRON-image", "DUT_OMRON/pixelwiseGT-new-PNG", False),
    ("duts", "DUTS/DUTS-TE/DUTS-TE-Image", "DUTS/DUTS-TE/DUTS-TE-Mask", False),
    ("ecssd", "ECSSD/images", "ECSSD/ground_truth_mask", False),
  ],
)
def test_documented_folders_open_without_cropping(tmp_path, name, images, masks, crop):
  expected = {
    stem: save_pair(tmp_path / images, tmp_path / masks, stem, size, seed)
    for seed, (stem, size) in enumerate({"b": (6, 4), "a": (3, 8)}.items())
  }
  benchmark = benchmarks.get(name)
  assert benchmark.crop == crop
  source = benchmarks.open_pairs(benchmark, str(tmp_path))
  assert len(source) == 2
  for _ in range(2):  # A source can be read repeatedly.
    examples = list(source)
    assert [stem for stem, _, _ in examples] == ["a", "b"]
    for stem, image, mask in examples:
      np.testing.assert_array_equal(image, expected[stem][0])
      np.testing.assert_array_equal(mask, expected[stem][1])
      assert mask.dtype == bool


def test_birds_may_lie_in_a_folder_for_each_species(tmp_path):
  benchmark = benchmarks.get("cub")
  images, masks = tmp_path / benchmark.images, tmp_path / benchmark.masks
  for species in ("001.Black_footed_Albatross", "002.Laysan_Albatross"):
    save_pair(images / species, masks / species, "bird_0001")
  source = benchmarks.open_pairs(benchmark, tmp_path)
  assert [name for name, _, _ in source] == [
    "001.Black_footed_Albatross/bird_0001",
    "002.Laysan_Albatross/bird_0001",
  ]
  (images / "003.Sooty_Albatross").mkdir()
  with pytest.raises(FileNotFoundError, match=r"test_images/003\.Sooty_Albatross"):
    benchmarks.open_pairs(benchmark, tmp_path)


def test_what_does_not_fit_is_named(tmp_path):
  images, masks = tmp_path / "ECSSD" / "images", tmp_path / "ECSSD" / "ground_truth_mask"
  save_pair(images, masks, "0001")
  ecssd = benchmarks.get("ecssd")
  (images / "0002.jpg").write_text("not a picture")
  with pytest.raises(ValueError, match=r"0002 of .* without a partner"):
    benchmarks.open_pairs(ecssd, tmp_path)
  save_pair(tmp_path, masks, "0002")
  with pytest.raises(ValueError, match=r"0002\.jpg cannot be read as a picture"):
    list(benchmarks.open_pairs(ecssd, tmp_path))
  (images / "0002.jpg").unlink()
  save_pair(images, masks, "0002", size=(6, 4), mask_size=(4, 6))
  with pytest.raises(ValueError, match=r"0002\.png is 4 x 6 pixels.*is 6 x 4"):
    list(benchmarks.open_pairs(ecssd, tmp_path))
  for path in masks.iterdir():
    path.unlink()
  masks.rmdir()
  with pytest.raises(FileNotFoundError, match="ground_truth_mask does not exist"):
    benchmarks.open_pairs(ecssd, tmp_path)


@pytest.mark.parametrize("root", [".", "missing"])
@pytest.mark.parametrize("name", ["cub", "duts"])
def test_missing_benchmark_says_both_ways_out(tmp_path, name, root):
  with pytest.raises(FileNotFoundError) as error:
    benchmarks.open_pairs(benchmarks.get(name), tmp_path / root)
  benchmark = benchmarks.get(name)
  assert benchmark.images in str(error.value) and benchmark.masks in str(error.value)
  assert f"benchmarks.prepare('{name}'" in str(error.value)


def test_unknown_benchmark_lists_those_there_are():
  with pytest.raises(
    ValueError, match="'pascal'; expected one of cub, flowers, dut_omron, duts, e"
  ):
    benchmarks.get("pascal")


def arrays(seed=0, height=5):
  return np.random.default_rng(seed).integers(0, 256, (height, 4, 3), np.uint8)


TRIMAP = np.array([[1, 2, 3, 1], [1, 1, 1, 1], [3, 3, 2, 2], [2, 1, 3, 2], [1, 2, 3, 1]], np.uint8)
GREYS = np.array([[0, 51, 102, 127]] * 2 + [[128, 153, 204, 255]] * 3, np.uint8)


class Anything(tfds.core.GeneratorBasedBuilder):
  """A data set with every form of mask."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    image = tfds.features.Image
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          "photo": image(),
          "grey_photo": image(shape=(None, None, 1)),
          "raw_photo": tfds.features.Tensor(shape=(5, 4, 3), dtype=np.uint8),
          "trimap": image(shape=(None, None, 1)),
          "greys": image(shape=(None, None, 1)),
          "coloured": image(),
          "deep": image(shape=(None, None, 1), dtype=np.uint16),
          "bools": tfds.features.Tensor(shape=(5, 4), dtype=np.bool_),
          "floats": tfds.features.Tensor(shape=(5, 4, 1), dtype=np.float32),
          "narrow": image(shape=(None, None, 1)),
          "label": tfds.features.Scalar(np.int64),
          "image/filename": tfds.features.Text(),
        }
      ),
    )

  def _split_generators(self, dl_manager):
    return {"test": self._generate_examples(3), "train": self._generate_examples(1)}

  def _generate_examples(self, count):
    for i in range(count):
      yield (
        i,
        {
          "photo": arrays(i),
          "grey_photo": arrays(i)[..., :1],
          "raw_photo": arrays(i),
          "trimap": TRIMAP[..., None],
          "greys": GREYS[..., None],
          "coloured": np.stack([GREYS, 255 - GREYS, 255 - GREYS], axis=-1),
          "deep": GREYS[..., None].astype(np.uint16) * 257,
          "bools": GREYS > 127,
          "floats": GREYS[..., None].astype(np.float32) / 255,
          "narrow": GREYS[:, :3, None],
          "label": i,
          "image/filename": f"CUB_200_2011/images/001/bird_{i}.jpg",
        },
      )


@pytest.fixture(scope="module", params=["array_record", "tfrecord"])
def prepared(request, tmp_path_factory):
  root = tmp_path_factory.mktemp(request.param)
  builder = tfds.builder("anything", data_dir=root, file_format=request.param)
  builder.download_and_prepare()
  return root


@pytest.mark.parametrize("mask", ["greys", "coloured", "deep", "bools", "floats"])
@pytest.mark.parametrize("image", ["photo", "grey_photo", "raw_photo"])
def test_masks_of_any_form_count_above_half(prepared, image, mask):
  source = tfds_source.open_pairs("anything", "test", image, mask, data_dir=prepared)
  examples = list(source)
  assert len(source) == len(examples) == 3
  assert sorted(name for name, _, _ in examples) == ["bird_0", "bird_1", "bird_2"]
  for name, picture, foreground in examples:
    expected = arrays(int(name[-1]))
    expected = np.repeat(expected[..., :1], 3, axis=2) if image == "grey_photo" else expected
    np.testing.assert_array_equal(picture, expected)
    assert picture.dtype == np.uint8 and foreground.dtype == bool
    np.testing.assert_array_equal(foreground, GREYS > 127)


def test_class_numbers_need_the_foreground_and_are_not_taken_for_brightness(prepared):
  source = tfds_source.open_pairs("anything", "test[:1]", "photo", "trimap", (1, 3), prepared)
  ((_, _, foreground),) = source
  np.testing.assert_array_equal(foreground, (TRIMAP == 1) | (TRIMAP == 3))
  source = tfds_source.open_pairs("anything", "test", "photo", "trimap", data_dir=prepared)
  with pytest.raises(ValueError, match=r"'trimap' of record 0 .*\[1, 2, 3\].*foreground=\(1,\)"):
    list(source)


def test_pictures_open_alone_from_one_number_up_to_another(prepared):
  pictures = unlabelled.open_pictures("tfds:anything:test[:2]:photo", str(prepared))
  source = tfds_source.open_pairs("anything", "test", "photo", "greys", data_dir=prepared)
  expected = [picture for _, picture, _ in source][:2]
  assert pictures.count == 2
  np.testing.assert_array_equal(list(pictures.read(0, 2)), expected)
  np.testing.assert_array_equal(list(pictures.read(1, 2)), expected[1:])
  for images, message in (
    ("tfds:anything:test", "expected tfds:NAME:SPLIT:KEY"),
    ("tfds:anything:dev:photo", "no split 'dev'"),
    ("tfds:anything:1.0.0:test:image", "no key 'image' for pictures"),
  ):
    with pytest.raises(ValueError, match=message):
      unlabelled.open_pictures(images, str(prepared))


def test_wrong_names_list_those_there_are(prepared):
  for arguments, message in (
    (("no_such_data", "test", "photo", "greys"), "TFDS has no data set 'no_such_data'"),
    (("anything", "dev", "photo", "greys"), "no split 'dev'; expected one of t.*test\\[:100\\]|tr"),
    (("anything", "test", "image", "greys"), r"no key 'image' for pictures.*photo \(Image\)"),
    (("anything", "test", "photo", "mask"), r"no key 'mask' for masks.*bools \(Tensor\)"),
  ):
    with pytest.raises(ValueError, match=message):
      tfds_source.open_pairs(*arguments, data_dir=prepared)
  with pytest.raises(FileNotFoundError, match="caltech_birds2011 is not prepared in"):
    tfds_source.open_pairs("caltech_birds2011", "test", "image", "m", data_dir=prepared)


def test_records_that_cannot_be_used_are_named(prepared):
  for image, mask, message in (
    ("photo", "narrow", r"'narrow' of record 0 \(bird_\d\) .* is 3 x 5 pixels.* is 4 x 5"),
    ("photo", "label", "'label' of record 0 .* has shape"),
    ("bools", "greys", "'bools' of record 0 .* is bool"),
  ):
    with pytest.raises(ValueError, match=message):
      list(tfds_source.open_pairs("anything", "test", image, mask, data_dir=prepared))


def test_without_tensorflow_other_formats_and_preparing_ask_for_it(prepared, monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, "tensorflow", None)
  arguments = ("anything", "test", "photo", "greys")
  if prepared.name.startswith("tfrecord"):
    message = r"reading .* anything, stored as tfrecord, needs TensorFlow.*unseg-jax\[tensorflow\]"
    with pytest.raises(errors.MissingPackage, match=message):
      tfds_source.open_pairs(*arguments, data_dir=prepared)
  else:
    assert len(list(tfds_source.open_pairs(*arguments, data_dir=prepared))) == 3
  with pytest.raises(errors.MissingPackage, match=r"preparing .* needs TensorFlow.*\[tensorflow\]"):
    benchmarks.prepare("ecssd", tmp_path)


def test_random_access_needs_neither_tensorflow_nor_the_builder(prepared):
  if prepared.name.startswith("tfrecord"):
    pytest.skip("TFRecords are read through TensorFlow")
  program = (
    "import sys\n"
    "from unseg_jax.evaluation import tfds_source\n"
    f"arguments = 'anything', 'test', 'photo', 'greys', None, {str(prepared)!r}\n"
    "assert len(list(tfds_source.open_pairs(*arguments))) == 3\n"
    "assert 'tensorflow' not in sys.modules\n"
  )
  subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
