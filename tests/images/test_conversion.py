"""Images of any mode, depth, transparency and orientation are converted as they look."""

import io
import struct

import numpy as np
import png_files
import pytest
from PIL import Image

from unseg_jax.images import reading

MODES = ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"]
ORIENTATION = 0x0112
# Three by two different pixels, so that every orientation looks different.
GREYS = np.array([[0, 50, 100], [150, 200, 250]], np.uint8)


@pytest.mark.parametrize(
  ("depth", "row", "transparent", "expected"),
  [
    (1, b"\x41", 0, [255, 255, 255, 255, 255, 255, 255, 255]),
    (1, b"\x41", 1, [0, 255, 0, 0, 0, 0, 0, 255]),
    (2, b"\x1b", 2, [0, 85, 255, 255]),
    (4, b"\x05\xaf", 10, [0, 85, 255, 255]),
    (4, b"\x05\xaf", 0, [255, 85, 170, 255]),
    (8, b"\x00\x07\xc8\xff", 7, [0, 255, 200, 255]),
    (16, struct.pack(">4H", 0, 257, 40000, 40001), 40000, [0, 1, 255, 156]),
    (16, struct.pack(">4H", 0, 257, 40000, 40001), 0, [255, 1, 156, 156]),
  ],
)
def test_the_transparent_grey_of_a_png_file_is_white_at_every_depth(
  depth, row, transparent, expected
):
  picture = reading.read_picture(
    "a.png", png_files.png(depth, 0, 8 * len(row) // depth, row, [transparent])
  )
  assert picture[0].tolist() == [[value] * 3 for value in expected]


@pytest.mark.parametrize(("depth", "code", "step"), [(8, "B", 1), (16, "H", 257)])
def test_the_transparent_colour_of_a_png_file_is_white(depth, code, step):
  colours = [step * value for value in (10, 20, 30, 10, 20, 31, 0, 0, 0)]
  row = struct.pack(f">9{code}", *colours)
  picture = reading.read_picture("a.png", png_files.png(depth, 2, 3, row, colours[:3]))
  assert picture[0].tolist() == [[255, 255, 255], [10, 20, 31], [0, 0, 0]]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_a_picture_of_every_orientation_stands_upright(tmp_path, suffix, orientation):
  # TIFF 6.0 defines an orientation by the visual position of the stored row 0 and column 0.
  stored = {
    1: GREYS,
    2: GREYS[:, ::-1],
    3: GREYS[::-1, ::-1],
    4: GREYS[::-1],
    5: GREYS.T,
    6: np.rot90(GREYS),
    7: np.rot90(GREYS, 2).T,
    8: np.rot90(GREYS, -1),
  }[orientation]
  exif = Image.Exif()
  exif[ORIENTATION] = orientation
  lossless = {"webp": {"lossless": True}, "jpg": {"quality": 100}}.get(suffix, {})
  path = tmp_path / f"a.{suffix}"
  # JPEG is exact up to rounding if a block has a single grey.
  blocks = stored.repeat(8, axis=0).repeat(8, axis=1)
  Image.fromarray(np.ascontiguousarray(blocks)).save(path, exif=exif, **lossless)
  expected = GREYS.repeat(8, axis=0).repeat(8, axis=1).astype(int)
  assert np.abs(reading.read_picture(path)[..., 0] - expected).max() <= 1
  with Image.open(path) as image:
    np.testing.assert_array_equal(reading.as_picture(image), reading.read_picture(path))


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_looks_as_its_rgb_does(mode):
  noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
  image = Image.fromarray(noise)
  if mode == "PA":
    image = image.convert("P").convert("PA")
  elif mode in ("La", "RGBa"):
    image = image.convert(f"{mode[:-1]}A").convert(mode)
  else:
    image = image.convert(mode)
  expected = image.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode)).convert("RGB")
  before = image.tobytes(), dict(image.info)
  np.testing.assert_array_equal(reading.as_picture(image), np.asarray(expected))
  assert (image.tobytes(), image.info) == before


@pytest.mark.parametrize("mode", ["La", "RGBa", "LA", "RGBA"])
def test_half_transparent_black_is_grey_whether_it_is_multiplied_or_not(mode):
  straight = Image.new(mode.upper(), (2, 1), (*[0] * (len(mode) - 1), 51))
  np.testing.assert_array_equal(reading.as_picture(straight.convert(mode)), np.full((1, 2, 3), 204))


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_16_bits_of_either_byte_order(mode):
  order = ">u2" if mode.endswith("B") else "<u2"
  values = np.array([[0, 257, 40000, 65535]])
  image = Image.frombytes(mode, (4, 1), values.astype(order).tobytes())
  assert reading.as_picture(image)[0, :, 0].tolist() == [0, 1, 156, 255]


def test_the_first_picture_of_several_in_one_jpeg_file(tmp_path):
  frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
  frames[0].save(tmp_path / "a.mpo", save_all=True, append_images=frames[1:])
  assert np.abs(reading.read_picture(tmp_path / "a.mpo") - [[[254.0, 0, 0]]]).max() <= 2


def test_damaged_exif_is_said_and_the_picture_read_as_it_is_stored(tmp_path, caplog):
  path = tmp_path / "a.png"
  Image.fromarray(GREYS).save(path, exif=b"Exif\x00\x00no such header")
  np.testing.assert_array_equal(reading.read_picture(path)[..., 0], GREYS)
  assert f"{path}: it may not be upright, because its EXIF data is damaged" in caplog.text


def test_a_drawing_is_not_given_to_another_program(tmp_path, monkeypatch):
  path = tmp_path / "drawing.png"
  path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
  monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("it was run"))
  with pytest.raises(ValueError, match=r"drawing\.png .*EPS files are vector drawings"):
    reading.read_picture(path)


def test_an_image_that_was_opened_is_read_as_its_file_is_whatever_was_done_before(tmp_path):
  path = tmp_path / "a.png"
  path.write_bytes(png_files.png(16, 0, 4, struct.pack(">4H", 0, 257, 40000, 65535), [40000]))
  for loaded in (False, True):
    with Image.open(path) as image:
      if loaded:
        image.load()
      np.testing.assert_array_equal(reading.as_picture(image), reading.read_picture(path))


@pytest.mark.parametrize("limit", [59, 60])
def test_more_pixels_than_the_limit_are_refused_with_the_way_to_raise_it(tmp_path, limit):
  path = tmp_path / "a.png"
  Image.new("L", (12, 5)).save(path)
  if limit == 60:
    assert reading.read_picture(path, max_pixels=limit).shape == (5, 12, 3)
  else:
    with pytest.raises(ValueError, match=r"a\.png has 12 x 5 pixels, 60 .*--max_pixels=60"):
      reading.read_picture(path, max_pixels=limit)


def test_pillows_own_limit_is_neither_met_nor_changed(tmp_path, monkeypatch):
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
  path = tmp_path / "a.png"
  Image.new("L", (12, 5)).save(path)
  assert reading.read_picture(path).shape == (5, 12, 3)
  assert Image.MAX_IMAGE_PIXELS == 10


def test_a_picture_beyond_the_default_limit_is_refused_before_it_is_decoded():
  contents = io.BytesIO()
  Image.new("1", (14_136, 14_136)).save(contents, "PNG")
  with pytest.raises(ValueError, match=r"14,136 x 14,136 .* limit is 180,000,000") as caught:
    reading.read_picture("large.png", contents.getvalue())
  assert "bomb" not in str(caught.value) and "undamaged" not in str(caught.value)


def test_an_array_is_a_picture_as_it_is_or_refused(tmp_path):
  picture = np.zeros((2, 3, 3), np.uint8)
  assert reading.as_picture(picture) is picture
  for wrong in (picture[:0], picture[..., 0], picture / 255, picture[..., :2], picture[:, :0]):
    with pytest.raises(ValueError, match=r"uint8 \[H, W, 3\] with at least one pixel") as caught:
      reading.as_picture(wrong)
    assert "\n" not in str(caught.value)


def test_an_image_without_pixels_or_that_is_truncated_is_named(tmp_path):
  noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8))
  path = tmp_path / "cut.png"
  noise.save(path)
  path.write_bytes(path.read_bytes()[:2000])
  with Image.open(path) as image, pytest.raises(ValueError, match=r"cut\.png cannot be read"):
    reading.as_picture(image)
  with pytest.raises(ValueError, match=r"the Pillow image cannot be read .* no pixels"):
    reading.as_picture(Image.new("RGB", (0, 5)))
