"""Images and masks of two folders become a data set, and errors describe problems in them."""

import numpy as np
import pytest
from PIL import Image

from unseg_jax.evaluation import folders


@pytest.fixture
def data_set(tmp_path):
  """Saves masks with one image each; returns both folders."""
  folders_made = tmp_path / "images", tmp_path / "masks"
  for folder in folders_made:
    folder.mkdir()

  def make(*masks):
    for number, mask in enumerate(masks):
      image = np.zeros((*mask.shape, 3), np.uint8)
      for folder, array in zip(folders_made, (image, mask), strict=True):
        Image.fromarray(array).save(folder / f"{number}.png")
    return folders_made

  return make


@pytest.mark.parametrize(
  ("values", "words"),
  [
    ((0, 0), r"2 masks in .*masks are all background: .* span 0 to 0, .* exceeds 127\.5"),
    ((0, 100), r"all background: their values span 0 to 100, .* exceeds 127\.5"),
    ((200, 255), r"all foreground: their values span 200 to 255"),
    ((1, 1), r"all foreground: their values span 1 to 1, .* exceeds 0\.5"),
    ((0, 7), r"1\.png .*\[7\], which look like class numbers"),
  ],
)
def test_masks_of_one_side_are_refused_before_any_picture_is_read(data_set, values, words):
  made = data_set(*(np.full((4, 5), value, np.uint8) for value in values))
  with pytest.raises(ValueError, match=words):
    folders.open_pairs(*made)


def test_one_mask_of_both_sides_among_many_is_enough(data_set):
  black = np.zeros((4, 5), np.uint8)
  both = np.eye(4, 5, dtype=np.uint8)
  source = folders.open_pairs(*data_set(*[black] * 40, both, *[black] * 3))
  assert sum(mask.sum() for _, _, mask in source) == 4


@pytest.fixture
def images_and_masks(tmp_path):
  images, masks = tmp_path / "images", tmp_path / "masks"
  images.mkdir()
  masks.mkdir()
  for name in ("b", "a.1", "c"):
    (images / f"{name}.JPG").touch()
    (masks / f"{name}.png").touch()
  (images / "notes.txt").touch()
  (images / ".c.jpg").touch()
  return images, masks


def test_pairs_by_stem_in_order(images_and_masks):
  images, masks = images_and_masks
  assert folders.paired(images, str(masks)) == [
    (images / f"{name}.JPG", masks / f"{name}.png") for name in ("a.1", "b", "c")
  ]


def test_unpaired_files_are_named(images_and_masks):
  images, masks = images_and_masks
  (images / "only_image.png").touch()
  for index in range(7):
    (masks / f"only_mask{index}.png").touch()
  with pytest.raises(ValueError) as error:
    folders.paired(images, masks)
  assert f"only_image of {images} without a partner in {masks}" in str(error.value)
  assert f"only_mask4 and 2 more of {masks}" in str(error.value)


@pytest.mark.parametrize("where", [0, 1])
def test_duplicate_stems_are_named(images_and_masks, where):
  (images_and_masks[where] / "b.bmp").touch()
  with pytest.raises(ValueError, match=r"b\.(JPG|bmp|png), b\.(JPG|bmp|png)") as error:
    folders.paired(*images_and_masks)
  assert str(images_and_masks[where]) in str(error.value)


@pytest.mark.parametrize("where", [0, 1])
def test_missing_and_empty_folders_are_named(images_and_masks, tmp_path, where):
  for name, expected in (("missing", "does not exist"), ("empty", "no pictures")):
    if name == "empty":
      (tmp_path / name).mkdir()
    both = list(images_and_masks)
    both[where] = tmp_path / name
    with pytest.raises(FileNotFoundError, match=f"{name} .*{expected}"):
      folders.paired(*both)
