"""`python -m unseg_jax.predict` writes the requested outputs, and reports what it did not do."""

import json
import shutil
from pathlib import Path

import brightness_segmenter
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from brightness_segmenter import Brightness, brightness
from PIL import Image

from unseg_jax import predict
from unseg_jax.images import drawing, writing
from unseg_jax.inference import refinement
from unseg_jax.prediction import manifest

FLAGS = flags.FLAGS
ORIENTATION = 0x0112  # The EXIF tag; 6: turn clockwise by 90 degrees for an upright image.
KINDS = ("mask", "cutout", "overlay")


@pytest.fixture(autouse=True)
def segmenter(tmp_path, monkeypatch):
  return brightness_segmenter.stand_in(monkeypatch, tmp_path / "run")


@pytest.fixture
def photos(tmp_path):
  folder = tmp_path / "photos"
  folder.mkdir()
  return folder


@pytest.fixture
def output(tmp_path):
  return tmp_path / "made" / "output"


@pytest.fixture
def command(segmenter, photos, output, capsys):
  """Calls the command with these defaults; returns its exit status and stderr."""

  def call(*positional, **flags):
    defaults = {"segmenter": segmenter, "input": photos, "output": output}
    arguments = [f"--{name}={value}" for name, value in (defaults | flags).items()]
    with flagsaver.flagsaver():
      status = predict.main(FLAGS(["predict", *positional, *arguments]))
    return status, capsys.readouterr().err

  return call


def noise(path, height=6, width=9, **options):
  array = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
  Image.fromarray(array).save(path, **options)
  return array


def outputs(folder):
  files = (path for path in folder.rglob("*") if path.is_file())
  return sorted(str(path.relative_to(folder)) for path in files if path.name != manifest.NAME)


def rows(folder):
  return [json.loads(line) for line in (folder / manifest.NAME).read_text().splitlines()]


def named(*stems):
  return sorted(f"{stem}_{kind}.png" for stem in stems for kind in KINDS)


def test_writes_mask_cutout_and_overlay_at_full_resolution(photos, output, command):
  image = noise(photos / "a.png", 30, 41)
  probability = brightness(image)
  status, _ = command()
  assert status == 0
  assert outputs(output) == named("a")
  with Image.open(output / "a_mask.png") as mask:
    assert mask.mode == "L" and mask.format == "PNG"
    np.testing.assert_array_equal(mask, np.where(probability > 0.5, 255, 0))
  with Image.open(output / "a_cutout.png") as cutout:
    assert cutout.mode == "RGBA"
    np.testing.assert_array_equal(cutout, drawing.cutout(image, probability))
  with Image.open(output / "a_overlay.png") as overlay:
    assert overlay.mode == "RGB"
    np.testing.assert_array_equal(overlay, drawing.overlay(image, probability))


def palette_with_alpha(path):
  image = Image.new("P", (8, 5))
  image.putpalette([255, 0, 0, 0, 0, 255])
  image.save(path.with_suffix(".png"), transparency=bytes([100, 255]))
  return 8, 5


def sixteen_bits(path):
  Image.fromarray(np.full((5, 8), 40000, np.uint16)).save(path.with_suffix(".png"))
  return 8, 5


def cmyk(path):
  Image.new("CMYK", (8, 5), (0, 90, 90, 10)).save(path.with_suffix(".jpg"))
  return 8, 5


def turned(path):
  exif = Image.Exif()
  exif[ORIENTATION] = 6
  noise(path.with_suffix(".jpg"), height=5, width=8, exif=exif)
  return 5, 8


def one_pixel(path):
  noise(path.with_suffix(".png"), height=1, width=1)
  return 1, 1


def portrait(path):
  noise(path.with_suffix(".webp"), height=200, width=20)
  return 20, 200


@pytest.mark.parametrize(
  "make", [palette_with_alpha, sixteen_bits, cmyk, turned, one_pixel, portrait]
)
def test_pictures_of_any_mode_and_size(photos, output, command, make):
  size = make(photos / "a")
  assert command()[0] == 0
  for kind, mode in zip(KINDS, ("L", "RGBA", "RGB"), strict=True):
    with Image.open(output / f"a_{kind}.png") as image:
      assert (image.size, image.mode) == (size, mode)


def test_unreadable_picture_is_named_and_the_others_are_done(photos, output, command):
  noise(photos / "a.png")
  (photos / "broken.jpg").write_text("no picture")
  noise(photos / "z.png")
  status, stderr = command()
  assert status == 1
  assert f"skipped: {photos / 'broken.jpg'} cannot be read" in stderr
  assert outputs(output) == named("a", "z")


def test_nothing_is_overwritten_unless_asked(photos, output, command):
  noise(photos / "a.png")
  noise(photos / "b.png")
  output.mkdir(parents=True)
  (output / "a_cutout.png").write_text("precious")
  status, stderr = command()
  assert status == 1
  assert str(output / "a_cutout.png") in stderr and "--overwrite" in stderr
  assert (output / "a_cutout.png").read_text() == "precious"
  assert outputs(output) == sorted([*named("b"), "a_cutout.png"])
  assert Brightness.calls == 1

  status, stderr = command(overwrite="true")
  assert status == 0 and "skipped" not in stderr
  assert outputs(output) == named("a", "b")
  with Image.open(output / "a_cutout.png") as cutout:
    assert cutout.mode == "RGBA"


@pytest.mark.parametrize(
  ("pattern", "stems"),
  [("", ["a", "b", "inner/c"]), ("a.png", ["a"]), ("*.jpg", ["b"]), ("**/*.png", ["a", "c"])],
)
def test_input_is_a_folder_a_file_or_a_glob(photos, output, command, pattern, stems):
  (photos / "inner").mkdir()
  for name in ("a.png", "b.jpg", "inner/c.png"):
    noise(photos / name)
  (photos / "notes.txt").touch()
  assert command(input=f"{photos}/{pattern}")[0] == 0
  assert outputs(output) == named(*stems)


def test_same_names_in_other_folders_are_kept_apart(photos, output, command):
  for name in ("trip/a.png", "trip/deep/a.png", "home/a.png"):
    (photos / name).parent.mkdir(exist_ok=True)
    noise(photos / name)
  assert command()[0] == 0
  assert outputs(output) == named("home/a", "trip/a", "trip/deep/a")

  shutil.rmtree(output)
  status, stderr = command(input=photos / "**" / "*.png")
  assert status == 0 and stderr.count("renamed: the outputs of 3 pictures") == 1
  assert outputs(output) == named("home/a", "trip/a", "trip/deep/a")


@pytest.mark.parametrize("linked", [False, True])
def test_outputs_inside_the_input_are_no_pictures_of_the_next_run(
  photos, command, tmp_path, linked
):
  noise(photos / "a.png")
  output = photos / "made"
  if linked:
    output = tmp_path / "link" / "made"
    output.parent.symlink_to(photos)
  for overwrite in ("false", "true"):
    status, stderr = command(output=output, overwrite=overwrite)
    assert status == 0
    assert outputs(photos) == sorted(["a.png", *named("made/a")])
  assert f"left out: 3 pictures in --output={output}" in stderr
  (photos / "a.png").unlink()
  status, stderr = command(output=output)
  assert status == 1 and "has no pictures but 3 pictures in --output" in stderr


@pytest.mark.parametrize(("root", "output"), [("photos", "photos"), ("photos", ".")])
def test_outputs_among_the_inputs_are_refused(photos, command, tmp_path, root, output):
  (photos / "photos").mkdir()
  noise(photos / "photos" / "a.png")
  status, stderr = command(input=tmp_path / root, output=tmp_path / output)
  assert status == 1 and Brightness.calls == 0
  assert f"use an --output such as {photos / 'segmented'}" in stderr
  assert outputs(photos) == ["photos/a.png"]


def test_output_may_hold_the_input(photos, command, tmp_path):
  noise(photos / "a.png")
  assert command(output=tmp_path)[0] == 0
  assert (tmp_path / "a_mask.png").exists()


def test_inputs_are_never_replaced(photos, command):
  noise(photos / "a.png")
  everything = photos / "*"
  assert command(input=everything, output=photos)[0] == 0
  before = (photos / "a_mask.png").read_bytes()
  status, stderr = command(input=everything, output=photos, overwrite="true")
  assert status == 1
  assert f"would replace the input {photos / 'a_mask.png'}" in stderr
  assert (photos / "a_mask.png").read_bytes() == before


def test_refined_masks_follow_the_pictures_edges(photos, output, command):
  image = noise(photos / "a.png", 30, 41)
  assert command(refine="guided")[0] == 0
  plain = brightness(image)
  refined = refinement.refine(plain, image, "guided")
  expected = drawing.cutout(image, refined)
  assert (expected != drawing.cutout(image, plain)).any()
  with Image.open(output / "a_cutout.png") as cutout:
    np.testing.assert_array_equal(cutout, expected)


@pytest.mark.parametrize(
  ("background", "expected"),
  [("white", (255, 255, 255)), ("#2060a0", (32, 96, 160)), ("hsl(0, 100%, 50%)", (255, 0, 0))],
)
def test_composite_on_a_colour(photos, output, command, background, expected):
  image = noise(photos / "a.png")
  assert command(background=background)[0] == 0
  assert outputs(output) == sorted([*named("a"), "a_composite.png"])
  probability = brightness(image)
  with Image.open(output / "a_composite.png") as composite:
    np.testing.assert_array_equal(composite, drawing.composite(image, probability, expected))


def test_composite_on_a_picture(photos, output, command, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  image = noise(photos / "a.png")
  background = noise(tmp_path / "beach.png", 20, 20)[::-1]
  Image.fromarray(background).save(tmp_path / "beach.png")
  assert command(background="~/beach.png")[0] == 0
  probability = brightness(image)
  with Image.open(output / "a_composite.png") as composite:
    np.testing.assert_array_equal(composite, drawing.composite(image, probability, background))


@pytest.mark.parametrize(
  ("background", "reason"),
  [
    ("whit", "no such file"),
    ("", "no such file"),
    ("#12345678", "no such file"),
    ("rgb(300, 0, 0)", "no such file"),
    ("{folder}", "no such file"),
    ("{folder}/notes.txt", "its format is unknown"),
  ],
)
def test_background_that_is_neither_is_refused_before_any_work(
  photos, output, command, background, reason
):
  noise(photos / "a.png")
  (photos / "notes.txt").write_text("no picture")
  background = background.format(folder=photos)
  status, stderr = command(background=background)
  assert status == 1 and not output.exists() and Brightness.calls == 0
  assert stderr.startswith(f"error: --background={background} is neither") and reason in stderr
  assert stderr.count("\n") == 1 and "such as white" in stderr


def test_animation_runs_there_and_back(photos, output, command):
  image = noise(photos / "a.png", 30, 41)
  assert command(animate="true")[0] == 0
  assert outputs(output) == sorted([*named("a"), "a_animated.webp"])
  probability = brightness(image)
  frames = writing.there_and_back(drawing.fading_frames(image, probability))
  with Image.open(output / "a_animated.webp") as animation:
    assert animation.is_animated and animation.size == frames.shape[2:0:-1]
    assert animation.info["loop"] == 0
    milliseconds = 0
    for index in range(animation.n_frames):
      animation.seek(index)
      animation.load()
      milliseconds += animation.info["duration"]
  assert milliseconds == len(frames) * 60


def test_an_unknown_refinement_is_refused_before_any_work(photos, output, command):
  noise(photos / "a.png")
  status, stderr = command(refine="blur")
  assert status == 1 and "refine='blur' is not offered" in stderr and not output.exists()


@pytest.mark.parametrize(
  ("flag", "words"),
  [
    ("segmenter", "not the workdir"),
    ("input", "is not a file or folder"),
    ("output", "expected a folder"),
  ],
)
def test_user_errors_take_one_line(photos, output, command, tmp_path, flag, words):
  noise(photos / "a.png")
  wrong = tmp_path / "wrong"
  if flag == "output":
    wrong.write_text("a file")
  status, stderr = command(**{flag: wrong})
  assert status == 1
  assert stderr.startswith("error: ") and stderr.count("\n") == 1
  assert str(wrong) in stderr and words in stderr
  assert not output.exists()


def test_glob_that_the_shell_expanded_is_refused(photos, output, command):
  noise(photos / "a.png")
  status, stderr = command("b.png", "c.png")
  assert status == 1
  assert "b.png c.png" in stderr and "quotes" in stderr
  assert not output.exists()


def test_failed_write_leaves_no_partial_file(photos, output, command, monkeypatch):
  noise(photos / "a.png")

  def write_half(path, data):
    with open(path, "wb") as file:
      file.write(data[: len(data) // 2])
    raise OSError(28, "No space left on device", str(path))

  monkeypatch.setattr(Path, "write_bytes", write_half)
  status, stderr = command()
  assert status == 1
  assert "error: " in stderr and "No space left on device" in stderr
  assert outputs(output) == []
