"""Images and masks of any format are read, and errors name the file."""

import numpy as np
import png_files
import pytest
from PIL import Image

from unseg_jax.images import reading

ORIENTATION = 0x0112  # The EXIF tag; 6 means to rotate the image clockwise by 90 degrees.

# Four very different colours, which JPEG and CMYK cannot mix up.
QUADRANTS = np.zeros((32, 48, 3), np.uint8)
QUADRANTS[:16, :24] = (200, 30, 30)
QUADRANTS[:16, 24:] = (30, 200, 30)
QUADRANTS[16:, :24] = (30, 30, 200)
QUADRANTS[16:, 24:] = (220, 220, 220)


def save(array_or_image, path, **options):
  image = array_or_image
  if not isinstance(image, Image.Image):
    image = Image.fromarray(image)
  image.save(path, **options)
  return path


@pytest.fixture
def ramp16():
  return np.linspace(0, 65535, 12 * 10).round().astype(np.uint16).reshape(12, 10)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm"])
def test_lossless_picture_comes_back_exactly(tmp_path, suffix):
  path = save(QUADRANTS, tmp_path / f"a.{suffix}")
  picture = reading.read_picture(path)
  assert picture.dtype == np.uint8
  np.testing.assert_array_equal(picture, QUADRANTS)
  np.testing.assert_array_equal(reading.read_picture(str(path)), QUADRANTS)


@pytest.mark.parametrize(("suffix", "mode"), [("jpg", "RGB"), ("jpg", "CMYK"), ("tif", "CMYK")])
def test_lossy_and_print_colours_are_close(tmp_path, suffix, mode):
  path = save(Image.fromarray(QUADRANTS).convert(mode), tmp_path / f"a.{suffix}")
  with Image.open(path) as image:
    assert image.mode == mode
  difference = np.abs(reading.read_picture(path).astype(int) - QUADRANTS)
  assert np.median(difference) <= 4


def test_picture_of_two_levels(tmp_path):
  bits = np.random.default_rng(0).random((7, 11)) > 0.5
  picture = reading.read_picture(save(bits, tmp_path / "a.png"))
  np.testing.assert_array_equal(picture, np.where(bits, 255, 0)[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (30, 2)])
def test_grey_picture_of_any_size_gets_three_equal_channels(tmp_path, shape):
  grey = np.full(shape, 77, np.uint8)
  picture = reading.read_picture(save(grey, tmp_path / "a.png"))
  np.testing.assert_array_equal(picture, np.full((*shape, 3), 77))


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_picture_is_scaled_to_8_bits(tmp_path, ramp16, suffix):
  path = save(ramp16, tmp_path / f"a.{suffix}")
  picture = reading.read_picture(path)
  np.testing.assert_array_equal(picture, np.rint(ramp16 / 257)[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("kind", ["float32", "int32"])
@pytest.mark.parametrize("white", [1, 255, 4095, 65535])
def test_32_bit_picture_is_scaled_by_the_range_that_it_plainly_has(tmp_path, kind, white):
  shares = np.array([[0, 1, 0.25]]) if kind == "float32" else np.array([[0, 1, 0]])
  picture = reading.read_picture(save((shares * white).astype(kind), tmp_path / "a.tif"))
  assert picture[..., 0].tolist() == np.rint(shares * 255).tolist()


@pytest.mark.parametrize(
  "values", [(0, -1), (0, np.nan), (0, np.inf), (0, 1.5), (0, 3e9)], ids=lambda value: str(value)
)
def test_float_picture_of_no_plain_scale_is_refused_with_its_range(tmp_path, values):
  path = save(np.array([values], np.float32), tmp_path / "wrong.tif")
  with pytest.raises(ValueError, match=r"wrong\.tif.* span .*; save it with 8 or 16 bits"):
    reading.read_picture(path)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_show_white(tmp_path, mode):
  image = Image.new(mode, (3, 1), 0)
  for x, alpha in enumerate((0, 51, 255)):
    image.putpixel((x, 0), (*[0] * (len(mode) - 1), alpha))
  picture = reading.read_picture(save(image, tmp_path / "a.png"))
  assert picture[0].tolist() == [[255] * 3, [204] * 3, [0] * 3]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_palette_with_transparency(tmp_path, transparency):
  image = Image.new("P", (2, 1))
  image.putpalette([10, 20, 30, 40, 50, 60])
  image.putpixel((1, 0), 1)
  path = save(image, tmp_path / "a.png", transparency=transparency)
  with Image.open(path) as reopened:
    assert reopened.mode == "P"
  assert reading.read_picture(path)[0].tolist() == [[10, 20, 30], [255] * 3]


def test_exif_orientation_is_honoured(tmp_path):
  exif = Image.Exif()
  exif[ORIENTATION] = 6
  path = save(QUADRANTS, tmp_path / "a.png", exif=exif)
  np.testing.assert_array_equal(reading.read_picture(path), np.rot90(QUADRANTS, -1))


def test_first_frame_of_an_animation(tmp_path):
  frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
  path = save(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
  np.testing.assert_array_equal(reading.read_picture(path), np.full((3, 4, 3), (255, 0, 0)))


def truncated(path):
  noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
  data = save(noise, path).read_bytes()
  path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
  "damage",
  [
    truncated,
    lambda path: path.write_text("no picture"),
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(b"P6\n0 0\n255\n"),
    lambda path: path.mkdir(),
    lambda path: None,
  ],
  ids=["truncated", "text", "empty", "of no size", "folder", "missing"],
)
@pytest.mark.parametrize("read", [reading.read_picture, reading.read_mask])
def test_unreadable_file_is_named(tmp_path, damage, read):
  path = tmp_path / "broken.png"
  damage(path)
  with pytest.raises(ValueError, match=r"broken\.png cannot be read as a picture: .*Expected"):
    read(path)


MASK = np.array([[0, 0, 1, 1], [0, 1, 0, 1]], bool)


def with_opacity(colour, mode="RGBA"):
  """A mask stored only in the opacity."""
  image = Image.new(mode, MASK.shape[::-1], colour)
  image.putalpha(Image.fromarray(np.where(MASK, 255, 0).astype(np.uint8)))
  return image


def with_palette(*colours):
  image = Image.new("P", MASK.shape[::-1])
  image.putdata(MASK.ravel().astype(int).tolist())
  image.putpalette([value for colour in colours for value in colour])
  return image


def cut_out():
  """A colour image with a transparent background."""
  noise = np.random.default_rng(0).integers(60, 250, (*MASK.shape, 3), np.uint8)
  image = Image.fromarray(noise)
  image.putalpha(Image.fromarray(np.where(MASK, 255, 0).astype(np.uint8)))
  return image


@pytest.mark.parametrize(
  ("mask", "suffix"),
  [
    (MASK, "png"),
    (MASK, "tif"),
    *((np.where(MASK, white, 0).astype(np.uint8), "png") for white in (1, 128, 255)),
    *((np.where(MASK, white, 0).astype(np.uint16), "png") for white in (1, 255, 65535)),
    *((np.where(MASK, white, 0).astype(np.uint16), "tif") for white in (1, 255, 65535)),
    *((np.where(MASK, white, 0).astype(np.int32), "tif") for white in (1, 255, 65535)),
    *((np.where(MASK, white, 0).astype(np.float32), "tif") for white in (1, 255, 65535)),
    (np.where(MASK, 1, 0).astype(np.uint8)[..., None].repeat(3, axis=2), "png"),
    (with_palette((0, 0, 0), (255, 255, 255)), "png"),
    (with_palette((0, 0, 0), (1, 1, 1)), "png"),
    (with_palette((0, 0, 0), (0, 128, 0)), "png"),
    (with_palette((0, 0, 0), (128, 0, 0)), "gif"),
    (with_opacity((0, 0, 0)), "png"),
    (with_opacity((255, 255, 255)), "png"),
    (with_opacity((255,), "L"), "png"),
    (cut_out(), "png"),
  ],
)
def test_mask_whose_scale_is_plain_is_read_on_it(tmp_path, mask, suffix):
  np.testing.assert_array_equal(reading.read_mask(save(mask, tmp_path / f"a.{suffix}")), MASK)


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("highest", [False, True])
def test_mask_of_2_or_4_bits_may_hold_0_and_1_or_the_highest(tmp_path, depth, highest):
  white = 2**depth - 1 if highest else 1
  bits = "".join(f"{white * bit:0{depth}b}" for bit in MASK[1].tolist())
  row = int(bits.ljust(16, "0"), 2).to_bytes(2, "big")[: -(-len(bits) // 8)]
  path = tmp_path / "a.png"
  path.write_bytes(png_files.png(depth, 0, 4, row))
  assert reading.read_mask(path)[0].tolist() == MASK[1].tolist()


def test_a_jpeg_mask_that_is_nearly_black_is_background(tmp_path):
  nearly_black = np.random.default_rng(0).integers(0, 2, (16, 16), np.uint8)
  assert not reading.read_mask(save(nearly_black, tmp_path / "a.jpg", quality=100)).any()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
def test_class_numbers_are_refused_with_their_values(tmp_path, kind):
  path = save(np.array([[0, 1, 2, 3]], kind), tmp_path / "a.tif")
  with pytest.raises(ValueError, match=r"a\.tif .*\[0, 1, 2, 3\].* class numbers; .*255 and 0"):
    reading.read_mask(path)


def test_mask_is_true_above_half_of_8_bits(tmp_path):
  mask = reading.read_mask(save(np.array([[0, 1, 127, 128, 255]], np.uint8), tmp_path / "a.png"))
  assert mask.dtype == bool
  assert mask.tolist() == [[False, False, False, True, True]]


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_mask_is_true_above_half_of_16_bits(tmp_path, suffix):
  values = np.array([[0, 255, 32767, 32768, 65535]], np.uint16)
  mask = reading.read_mask(save(values, tmp_path / f"a.{suffix}"))
  assert mask.tolist() == [[False, False, False, True, True]]


def test_mask_of_two_levels_keeps_its_resolution(tmp_path):
  bits = np.random.default_rng(1).random((301, 7)) > 0.5
  np.testing.assert_array_equal(reading.read_mask(save(bits, tmp_path / "a.png")), bits)


def test_mask_looks_at_the_first_channel_only(tmp_path):
  red_green = np.array([[[255, 0, 0, 0], [0, 255, 255, 255]]], np.uint8)
  for channels in (3, 4):
    path = save(np.ascontiguousarray(red_green[..., :channels]), tmp_path / "a.png")
    assert reading.read_mask(path).tolist() == [[True, False]]


@pytest.mark.parametrize("options", [{}, {"transparency": 1}])
def test_mask_with_a_palette_goes_by_colour(tmp_path, options):
  image = Image.new("P", (3, 1))
  image.putpalette([255, 255, 255, 128, 0, 0, 0, 0, 0])
  for index in range(3):
    image.putpixel((index, 0), index)
  path = save(image, tmp_path / "a.png", **options)
  assert reading.read_mask(path).tolist() == [[True, True, False]]
