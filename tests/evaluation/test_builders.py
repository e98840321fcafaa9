"""The builders pass TFDS's own tests on tiny archives with the original layout."""

import io
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import ClassVar
from unittest import mock

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image

from unseg_jax.evaluation import benchmarks
from unseg_jax.evaluation.builders import archives, dut_omron, duts, ecssd, flowers

SIZES = ((12, 10), (8, 15))  # Width and height; portrait and landscape.


def encoded(image, image_format, **options):
  buffer = io.BytesIO()
  image.save(buffer, image_format, **options)
  return buffer.getvalue()


def picture(seed):
  width, height = SIZES[seed % 2]
  noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
  return encoded(Image.fromarray(noise), "JPEG")


def mask(seed):
  width, height = SIZES[seed % 2]
  values = np.random.default_rng(seed).choice([0, 51, 204, 255], (height, width)).astype(np.uint8)
  return encoded(Image.fromarray(values), "PNG")


def segmentation(seed):
  """A red flower in the left half, on the original's blue."""
  width, height = SIZES[seed % 2]
  image = Image.new("RGB", (width, height), (0, 0, 254))
  image.paste((200, 20, 30), (0, 0, width // 2, height))
  return encoded(image, "JPEG", quality=95, subsampling=0)


def pairs(images, masks, names, first=0):
  files = {}
  for seed, name in enumerate(names, first):
    files[f"{images}/{name}.jpg"] = picture(seed)
    files[f"{masks}/{name}.png"] = mask(seed)
  return files


def write_zips(root, files_of_archives):
  for name, files in files_of_archives.items():
    with zipfile.ZipFile(root / name, "w") as archive:
      for path, data in files.items():
        archive.writestr(path, data)


def split_by_folder(files, folder):
  return {path: data for path, data in files.items() if path.startswith(f"{folder}/")}


def write_ecssd(root, names=("0001", "0002", "0003")):
  files = pairs("images", "ground_truth_mask", names)
  write_zips(
    root,
    {f"{folder}.zip": split_by_folder(files, folder) for folder in ("images", "ground_truth_mask")},
  )


def write_dut_omron(root):
  files = pairs("DUT-OMRON-image", "pixelwiseGT-new-PNG", ("im005", "sun_aaaenaoynzhoyheo"))
  files["pixelwiseGT-new-PNG/Thumbs.db"] = b"not a picture"
  write_zips(
    root,
    {
      "DUT-OMRON-image.zip": split_by_folder(files, "DUT-OMRON-image"),
      "DUT-OMRON-gt-pixelwise.zip.zip": split_by_folder(files, "pixelwiseGT-new-PNG")
      | {"__MACOSX/pixelwiseGT-new-PNG/._im005.png": b"not a picture"},
    },
  )


def write_duts(root):
  train = pairs("DUTS-TR/DUTS-TR-Image", "DUTS-TR/DUTS-TR-Mask", ("n01532829_13482", "b", "c"))
  test = pairs("DUTS-TE/DUTS-TE-Image", "DUTS-TE/DUTS-TE-Mask", ("sun_bcogaqperiljqupq", "e"), 3)
  # Archives older than the erratum: the JPEG is right for one, the PNG for the other.
  train["DUTS-TR/DUTS-TR-Mask/n01532829_13482.jpg"] = encoded(Image.new("L", SIZES[0], 255), "JPEG")
  test["DUTS-TE/DUTS-TE-Mask/sun_bcogaqperiljqupq.jpg"] = encoded(Image.new("L", (3, 3)), "JPEG")
  write_zips(root, {"DUTS-TR.zip": train, "DUTS-TE.zip": test})


def write_flowers(root):
  numbers = range(1, 7)
  for name, folder, stem, data in (
    ("102flowers.tgz", "jpg", "image", picture),
    ("102segmentations.tgz", "segmim", "segmim", segmentation),
  ):
    with tarfile.open(root / name, "w:gz") as archive:
      for number in numbers:
        content = data(number)
        info = tarfile.TarInfo(f"{folder}/{stem}_{number:05d}.jpg")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
  scipy.io.savemat(root / "setid.mat", {"trnid": [[4]], "valid": [[6, 1]], "tstid": [[2, 5, 3]]})


class OnFakeArchives:
  """Points TFDS's test to generated archives."""

  @classmethod
  def setUpClass(cls):
    cls.folder = tempfile.TemporaryDirectory()
    cls.addClassCleanup(cls.folder.cleanup)
    cls.EXAMPLE_DIR = cls.folder.name
    cls.write(Path(cls.folder.name))
    super().setUpClass()


class EcssdTest(OnFakeArchives, tfds.testing.DatasetBuilderTestCase):
  DATASET_CLASS = ecssd.Ecssd
  SPLITS: ClassVar = {"test": 3}
  write = staticmethod(write_ecssd)


class DutOmronTest(OnFakeArchives, tfds.testing.DatasetBuilderTestCase):
  DATASET_CLASS = dut_omron.DutOmron
  SPLITS: ClassVar = {"test": 2}
  write = staticmethod(write_dut_omron)


class DutsTest(OnFakeArchives, tfds.testing.DatasetBuilderTestCase):
  DATASET_CLASS = duts.Duts
  SPLITS: ClassVar = {"train": 3, "test": 2}
  write = staticmethod(write_duts)


class FlowersTest(OnFakeArchives, tfds.testing.DatasetBuilderTestCase):
  DATASET_CLASS = flowers.Flowers102Segmentation
  SPLITS: ClassVar = {"train": 1, "validation": 2, "test": 3}
  write = staticmethod(write_flowers)


@pytest.fixture
def root(tmp_path):
  (tmp_path / "downloads" / "manual").mkdir(parents=True)
  return tmp_path


def prepared(name, write, root):
  """Prepares a benchmark from manually placed archives, and reads it."""
  write(root / "downloads" / "manual")
  benchmarks.prepare(name, root)
  return list(benchmarks.open_pairs(benchmarks.get(name), root))


def test_prepared_benchmark_gives_the_original_pixels(root):
  examples = prepared("ecssd", write_ecssd, root)
  assert sorted(name for name, _, _ in examples) == ["0001", "0002", "0003"]
  for name, image, foreground in examples:
    seed = int(name) - 1
    np.testing.assert_array_equal(image, np.array(Image.open(io.BytesIO(picture(seed)))))
    np.testing.assert_array_equal(foreground, np.array(Image.open(io.BytesIO(mask(seed)))) > 127)


def test_withdrawn_masks_of_duts_are_left_out(root):
  examples = {name: mask for name, _, mask in prepared("duts", write_duts, root)}
  expected = np.array(Image.open(io.BytesIO(mask(3)))) > 127
  np.testing.assert_array_equal(examples["sun_bcogaqperiljqupq"], expected)
  train = tfds.builder("duts", data_dir=root).as_data_source("train")
  (right,) = (record for record in train if record["filename"] == b"n01532829_13482.jpg")
  assert (right["mask"] > 127).all()


def test_flowers_are_what_is_not_blue_in_the_official_test_split(root):
  examples = prepared("flowers", write_flowers, root)
  assert sorted(name for name, _, _ in examples) == ["image_00002", "image_00003", "image_00005"]
  for _, image, foreground in examples:
    assert foreground.shape == image.shape[:2]
    half = np.arange(foreground.shape[1]) < foreground.shape[1] // 2
    np.testing.assert_array_equal(foreground, np.broadcast_to(half, foreground.shape))


def test_birds_of_tfds_keep_the_annotators_greys(root):
  pytest.importorskip("cv2", reason="TFDS reads these masks with OpenCV")
  names = {1: "001.Black_footed_Albatross/bird_a", 2: "001.Black_footed_Albatross/bird_b"}
  images = {f"CUB_200_2011/images/{name}.jpg": picture(i) for i, name in names.items()}
  tables = {
    "images": "".join(f"{i} {name}.jpg\n" for i, name in names.items()),
    "train_test_split": "1 1\n2 0\n",
    "bounding_boxes": "1 0 0 3 3\n2 0 0 3 3\n",
  }
  tables = {f"CUB_200_2011/{name}.txt": text.encode() for name, text in tables.items()}
  masks = {f"segmentations/{name}.png": mask(i) for i, name in names.items()}
  for path, data in (images | tables | masks).items():
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(data)
  with mock.patch.multiple(
    tfds.download.DownloadManager,
    download=lambda *_: [root],
    download_and_extract=lambda *_: [root, root / "segmentations"],
    iter_archive=lambda *_: [(path, io.BytesIO(data)) for path, data in images.items()],
  ):
    benchmarks.prepare("cub", root)
  # It is beside the folders of its own archive, which differ from the benchmark's folders.
  ((name, image, foreground),) = benchmarks.open_pairs(benchmarks.get("cub"), root)
  assert name == "bird_b"
  np.testing.assert_array_equal(image, np.array(Image.open(io.BytesIO(picture(2)))))
  np.testing.assert_array_equal(foreground, np.array(Image.open(io.BytesIO(mask(2)))) > 127)


@pytest.mark.parametrize("quality", [75, 95])
def test_flower_of_any_colour_survives_jpeg(tmp_path, quality):
  y, x = np.mgrid[:120, :160]
  disc = (x - 80) ** 2 + (y - 60) ** 2 < 45**2
  for colour in ((0, 0, 0), (255, 255, 255), (255, 0, 0), (130, 60, 200), (40, 120, 30)):
    picture = np.where(disc[..., None], np.uint8(colour), np.uint8((0, 0, 254)))
    Image.fromarray(picture).save(tmp_path / "a.jpg", quality=quality)
    mask_of_flower = flowers.read_segmentation(tmp_path / "a.jpg")[..., 0] == 255
    assert (mask_of_flower & disc).sum() / (mask_of_flower | disc).sum() > 0.95, colour


def test_broken_files_in_archives_are_named(root):
  manual = root / "downloads" / "manual"
  files = pairs("images", "ground_truth_mask", ("0001", "0002"))
  for name, path, data in (
    ("unpaired", "ground_truth_mask/0002.png", None),
    ("cannot be read", "images/0002.jpg", b"no picture"),
    ("cannot be read", "ground_truth_mask/0002.png", b"no picture"),
    ("12 x 10 pixels", "ground_truth_mask/0002.png", mask(0)),
  ):
    broken = files | {path: data}
    folder = manual / str(len(list(manual.iterdir())))
    for member, content in broken.items():
      if content is not None:
        (folder / member).parent.mkdir(parents=True, exist_ok=True)
        (folder / member).write_bytes(content)
    with pytest.raises(ValueError, match="0002") as error:
      list(archives.examples(folder / "images", folder / "ground_truth_mask"))
    assert ("without a partner" if name == "unpaired" else name) in str(error.value)


def test_download_is_tried_only_for_what_was_not_put_there(tmp_path):
  manager = mock.Mock(tfds.download.DownloadManager, manual_dir=tmp_path)
  manager.extract.side_effect = lambda path: tmp_path / f"{path.name}_extracted"
  manager.download_and_extract.return_value = "/downloaded"
  url = "http://example.org/data/images.zip"
  assert archives.fetch(manager, url) == Path("/downloaded")
  (tmp_path / "images.zip").touch()
  assert archives.fetch(manager, url) == tmp_path / "images.zip_extracted"
  manager.download_and_extract.assert_called_once_with(url)
  assert archives.fetch(manager, url, extract=False) == tmp_path / "images.zip"


def test_failed_download_says_where_to_put_the_file():
  manager = mock.Mock(tfds.download.DownloadManager)
  type(manager).manual_dir = mock.PropertyMock(side_effect=AssertionError)
  manager.download_and_extract.side_effect = ConnectionError("no route")
  with pytest.raises(OSError, match=r"a\.org/images\.zip .*no route.*downloads/manual"):
    archives.fetch(manager, "http://a.org/images.zip")


@pytest.mark.parametrize("builder", [ecssd.Ecssd, dut_omron.DutOmron, duts.Duts])
def test_instructions_name_every_archive(builder, root):
  write = {"Ecssd": write_ecssd, "DutOmron": write_dut_omron, "Duts": write_duts}
  write[builder.__name__](root)
  for archive in root.glob("*.zip"):
    assert f"  {archive.name}, from http" in builder.MANUAL_DOWNLOAD_INSTRUCTIONS
