"""Images are found by path, by pattern and in folders."""

import os
from pathlib import Path

import pytest

from unseg_jax.images import reading


@pytest.fixture
def tree(tmp_path, monkeypatch):
  """Images at two folder depths, and other files."""
  monkeypatch.setenv("HOME", str(tmp_path))
  (tmp_path / "inner").mkdir()
  (tmp_path / "folder.jpg").mkdir()
  for name in ("b.png", "a.JPEG", "photo[1].jpg", "phone.heic", "t.txt", ".h.png", "inner/c.png"):
    (tmp_path / name).touch()
  return tmp_path


@pytest.mark.parametrize(
  ("pattern", "names"),
  [
    ("", ["a.JPEG", "b.png", "phone.heic", "photo[1].jpg"]),
    ("b.png", ["b.png"]),
    ("t.txt", ["t.txt"]),
    ("photo[1].jpg", ["photo[1].jpg"]),
    ("*", ["a.JPEG", "b.png", "phone.heic", "photo[1].jpg"]),
    ("*.png", ["b.png"]),
    ("**/*.png", ["b.png", "inner/c.png"]),
    ("*/", None),
    ("*.txt", None),
    ("missing.png", None),
    ("missing", None),
  ],
)
@pytest.mark.parametrize("home", [True, False])
def test_find_pictures(tree, pattern, names, home):
  pattern = f"~/{pattern}" if home else f"{tree}/{pattern}"
  if names is None:
    with pytest.raises(FileNotFoundError, match=r"matches no picture; expected .*\.png"):
      reading.find_pictures(pattern)
  else:
    assert reading.find_pictures(pattern) == [tree / name for name in names]


def test_folder_without_pictures(tree):
  (tree / "inner" / "c.png").unlink()
  with pytest.raises(FileNotFoundError, match="inner has no pictures directly in it"):
    reading.find_pictures(tree / "inner")


def test_folder_with_the_folders_inside(tree):
  for name in ("inner/.hidden/d.png", "inner/deep/b.png", "inner/.h.png", "inner/deep/t.txt"):
    (tree / name).parent.mkdir(exist_ok=True, parents=True)
    (tree / name).touch()
  (tree / "inner" / "loop").symlink_to(tree)
  pictures = reading.find_pictures(tree / "inner", subfolders=True)
  assert pictures == [tree / "inner" / "c.png", tree / "inner" / "deep" / "b.png"]
  assert reading.find_pictures("~/inner", subfolders=True) == pictures
  assert reading.find_pictures(tree / "inner") == pictures[:1]


def test_folder_without_pictures_in_folders_inside(tree):
  (tree / "inner" / "c.png").unlink()
  (tree / "inner" / "deep").mkdir()
  with pytest.raises(FileNotFoundError, match="inner has no pictures in it or in its subfolders"):
    reading.find_pictures(tree / "inner", subfolders=True)


def test_folder_inside_that_cannot_be_searched_is_named(tree, monkeypatch):
  scan = os.scandir

  def refuse(path):
    if Path(path).name == "inner":
      raise PermissionError(13, "Permission denied", str(path))
    return scan(path)

  monkeypatch.setattr(os, "scandir", refuse)
  with pytest.raises(PermissionError, match="inner"):
    reading.find_pictures(tree, subfolders=True)
