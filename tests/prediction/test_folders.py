"""`predict` on a folder never ends early, writes the right sizes, and names what it skips."""

import io
import os
import socket
import tempfile
from pathlib import Path

import brightness_segmenter
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image
from predicting import call, save

from unseg_jax import predict
from unseg_jax.prediction import manifest

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16")
SUFFIXES = {".png": "PNG", ".PNG": "PNG", ".tif": "TIFF", ".jpg": "JPEG", ".webp": "WEBP"}
ENDINGS = ("_mask.png", "_cutout.png", "_overlay.png", "_animated.webp")
LONGEST_NAME = 255


@pytest.fixture(autouse=True)
def run(tmp_path, monkeypatch):
  return brightness_segmenter.stand_in(monkeypatch, tmp_path / "run")


def picture(mode, size, image_format):
  """Returns the bytes of a noise image in this mode if the format supports it, or else in RGB."""
  values = np.random.default_rng(size[0]).integers(0, 256, (size[1], size[0], 3), np.uint8)
  image = Image.fromarray(values)
  if mode == "I;16":
    image = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
  elif mode != "RGB":
    image = image.convert(mode)
  file = io.BytesIO()
  try:
    image.save(file, image_format)
  except (OSError, ValueError, KeyError):
    file = io.BytesIO()
    Image.fromarray(values).save(file, image_format)
  return file.getvalue()


def broken(kind, path):
  """Replaces an image with something unreadable."""
  if kind == "link":
    path.symlink_to("nowhere")
  elif kind == "loop":
    path.symlink_to(path.name)
  elif kind == "pipe":
    os.mkfifo(path)
  elif kind == "text":
    path.write_text("no picture")
  elif kind == "empty":
    path.touch()
  else:
    path.write_bytes(picture("RGB", (40, 40), "PNG")[:100])


BROKEN = ("link", "loop", "pipe", "text", "empty", "cut")
# Bytes of names: letters of several alphabets, and bytes that are not UTF-8.
LETTERS = [b"a", b"A", b"_mask", b".png", b" ", b"\n", b"'", b"[0]", b"%s", b"\xe9", b"\xff\xfe"]
LETTERS += ["é".encode(), "é".encode(), "猫".encode(), "😀".encode(), b"x" * 120]


@st.composite
def folders(draw):
  """Draws files by the bytes of their names: a kind of damage, or mode and size of an image."""
  files = {}
  for _ in range(draw(st.integers(1, 8))):
    folder = draw(st.sampled_from([b"", b"inner/", b"Inner/", b"a_mask.png/"]))
    stem = b"".join(draw(st.lists(st.sampled_from(LETTERS), min_size=1, max_size=4)))
    suffix = draw(st.sampled_from(sorted(SUFFIXES)))
    name = stem[: LONGEST_NAME - len(suffix)] + suffix.encode()
    good = st.tuples(st.sampled_from(MODES), st.tuples(*[st.integers(1, 70)] * 2))
    if not name.startswith(b"."):
      files[folder + name] = draw(st.one_of(good, good, st.sampled_from(BROKEN)))
  hypothesis.assume(files)
  return files


def make(root, files):
  """Writes the files; returns the sizes of the valid images by path."""
  sizes = {}
  for name, content in files.items():
    path = root / os.fsdecode(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() or path.is_symlink():
      continue  # It is a folder of another file.
    if isinstance(content, str):
      broken(content, path)
    else:
      path.write_bytes(picture(*content, SUFFIXES[path.suffix]))
      sizes[str(path)] = content[1]
  return sizes


@hypothesis.settings(
  max_examples=40,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(folders())
def test_every_picture_is_segmented_or_named(run, files):
  with tempfile.TemporaryDirectory() as place:
    photos, output = Path(place, "photos"), Path(place, "output")
    sizes = make(photos, files)
    found = {str(path) for path in photos.rglob("*") if not path.is_dir()}
    hypothesis.assume(found)
    status, said, rows = call(photos, output, run, animate=True)
    assert rows.keys() == found
    names = [name for row in rows.values() for name in row.get("outputs", ())]
    assert len(names) == len(set(names))
    written = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert written == {*names, manifest.NAME}
    for source, row in rows.items():
      if "skipped" in row:
        assert f"skipped: {predict.printable(source)}" in said
        # A readable image is skipped only because of its outputs' names.
        assert source not in sizes or "cannot be written" in row["skipped"]
      else:
        assert (row["width"], row["height"]) == sizes[source]
        pairs = zip(row["outputs"], ENDINGS, strict=True)
        assert all(name.endswith(ending) for name, ending in pairs)
        for name in row["outputs"][:3]:
          with Image.open(output / name) as image:
            assert image.size == sizes[source]
    skipped = sum("skipped" in row for row in rows.values())
    assert said.count("skipped: ") == skipped and status == (skipped > 0)


def test_a_picture_of_one_name_and_several_suffixes_keeps_them(tmp_path, run):
  photos, output = tmp_path / "photos", tmp_path / "output"
  for name in ("a.jpg", "a.png", "a.jpg.png", "b.png", "inner/a.png"):
    save(photos / name)
  status, said, rows = call(photos, output, run, kinds=["mask"])
  assert status == 0 and said.count("renamed: the outputs of 3 pictures") == 1
  assert {
    Path(source).name: row["outputs"] for source, row in rows.items() if "inner" not in source
  } == {
    "a.jpg": ["a.jpg_mask.png"],
    "a.png": ["a.png_mask.png"],
    "a.jpg.png": ["a.jpg.png_mask.png"],
    "b.png": ["b_mask.png"],
  }
  before = {path: path.stat().st_mtime_ns for path in output.rglob("*.png")}
  assert call(photos, output, run, kinds=["mask"], resume=True)[0] == 0
  assert {path: path.stat().st_mtime_ns for path in output.rglob("*.png")} == before


def test_names_that_differ_in_case_are_kept_apart_where_a_disk_ignores_it(
  tmp_path, run, monkeypatch
):
  monkeypatch.setattr("unseg_jax.storage.file_trees.LocalTree.ignores_case", lambda _: True)
  photos, output = tmp_path / "photos", tmp_path / "output"
  for name in ("A.png", "a.png", "Q/x.png", "q/x.png", "b.png"):
    save(photos / name)
  status, _, rows = call(photos, output, run, kinds=["mask"])
  names = [name.casefold() for row in rows.values() for name in row["outputs"]]
  assert status == 0 and len(names) == len(set(names)) == 5 and "b_mask.png" in names


@pytest.mark.parametrize("kind", ["link", "loop", "pipe", "socket", "device", "folder"])
def test_what_is_no_file_is_a_skipped_row(tmp_path, run, kind, monkeypatch):
  photos, output = tmp_path / "photos", tmp_path / "output"
  save(photos / "a.png")
  path, reason = photos / "b.png", "cannot be read"
  if kind == "socket":
    monkeypatch.chdir(photos)  # The path of a socket must be short.
    with socket.socket(socket.AF_UNIX) as server:
      server.bind("b.png")
    reason = "is a socket"
  elif kind == "device":
    path.symlink_to(os.devnull)
    reason = "is a device"
  elif kind == "folder":
    path.mkdir()
    refuse_to_search(path, monkeypatch)
    reason = "is a folder that cannot be searched"
  else:
    broken(kind, path)
    reason = {"link": "a link to nowhere", "loop": "Too many levels", "pipe": "is a pipe"}[kind]
  status, said, rows = call(photos, output, run)
  assert status == 1 and said.count("skipped: ") == 1
  skipped = [row for row in rows.values() if "skipped" in row]
  assert len(skipped) == 1 and skipped[0]["skipped"].startswith(str(path))
  assert reason in skipped[0]["skipped"]
  assert (output / "a_mask.png").exists()


def refuse_to_search(folder, monkeypatch):
  """Refuses access to a folder, as for a user without permission; the tests may run as root."""
  scandir = os.scandir

  def refusing(path):
    if os.fspath(path) == str(folder):
      raise PermissionError(13, "Permission denied", str(path))
    return scandir(path)

  monkeypatch.setattr(os, "scandir", refusing)


def test_one_output_that_cannot_be_written_is_one_skipped_row(tmp_path, run):
  photos, output = tmp_path / "photos", tmp_path / "output"
  long = "x" * (LONGEST_NAME - len("_mask.png"))
  for name in ("a.png", f"{long}.png", "taken.png", "z.png"):
    save(photos / name)
  (output / "taken_cutout.png" / "inside").mkdir(parents=True)
  status, said, rows = call(photos, output, run, resume=True)
  assert status == 1 and said.count("skipped: ") == 2
  assert "File name too long" in rows[str(photos / f"{long}.png")]["skipped"]
  assert "Is a directory" in rows[str(photos / "taken.png")]["skipped"]
  files = {path.name for path in output.rglob("*") if path.is_file()}
  # All outputs of an image or none.
  assert files == {f"{stem}_{k}.png" for stem in "az" for k in ("mask", "cutout", "overlay")} | {
    manifest.NAME
  }
  assert call(photos, tmp_path / "masks", run, kinds=["mask"])[0] == 0  # Just short enough.


def test_the_manifest_names_any_file_and_can_be_read_as_json(tmp_path, run, capsys):
  photos, output = tmp_path / "photos", tmp_path / os.fsdecode(b"\xe9t\xe9")
  photos.mkdir()
  save(photos / "é.png")
  os.rename(photos / "é.png", os.fsencode(photos) + b"/caf\xe9.png")
  save(photos / "é.png")
  status, _, rows = call(photos, output, run, kinds=["mask"])
  assert status == 0
  assert {os.path.basename(os.fsencode(name)) for name in rows} == {
    b"caf\xe9.png",
    "é.png".encode(),
  }
  for row in rows.values():
    assert (output / row["outputs"][0]).exists()
  (output / manifest.NAME).read_bytes().decode("utf-8")
  assert "2 of 2 pictures" in capsys.readouterr().out
