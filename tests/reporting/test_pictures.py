"""Views of images: the foreground stays bright, and files keep every pixel."""

import io

import numpy as np
import pytest
from PIL import Image
from report_pages import disc, picture

from unseg_jax.images import drawing, writing


def test_bytes_survive_the_way_to_the_networks_range_and_back():
  every_byte = np.arange(256, dtype=np.uint8)
  floats = writing.to_float(every_byte)
  assert floats.dtype == np.float32 and floats.min() == -1 and floats.max() == 1
  np.testing.assert_array_equal(writing.to_uint8(floats), every_byte)


def test_to_uint8_rounds_to_nearest_and_clips():
  step = 1 / 127.5
  values = np.array([-7, -1 + 0.4 * step, -1 + 0.6 * step, 1 - 0.4 * step, 7], np.float32)
  np.testing.assert_array_equal(writing.to_uint8(values), [0, 0, 1, 255, 255])


def test_overlay_keeps_the_foreground_and_darkens_the_background():
  image, mask = picture(), disc()
  result = drawing.overlay(image, mask)
  outline = (result == drawing.OUTLINE).all(axis=-1)
  np.testing.assert_array_equal(result[mask & ~outline], image[mask & ~outline])
  assert result[~mask].mean() < 0.6 * image[~mask].mean()
  # The outline lies in the mask and separates its inside from the background.
  assert outline.any() and not outline[~mask].any()
  inside = mask & ~outline
  for axis in (0, 1):
    for shift in (-1, 1):
      assert not (np.roll(inside, shift, axis) & ~mask).any()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_overlay_of_a_uniform_mask_has_no_outline(value):
  result = drawing.overlay(picture(), np.full((64, 64), value, np.float32))
  assert not (result == drawing.OUTLINE).all(axis=-1).any()


def test_cutout_turns_probability_into_opacity():
  probability = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
  result = drawing.cutout(picture(), probability)
  np.testing.assert_array_equal(result[..., :3], picture())
  np.testing.assert_array_equal(result[..., 3], np.rint(probability * 255))


def test_grid_fills_rows_and_leaves_the_rest_white():
  images = np.stack([np.full((2, 3, 3), i, np.uint8) for i in range(5)])
  sheet = writing.grid(images, columns=2)
  assert sheet.shape == (6, 6, 3)
  np.testing.assert_array_equal(sheet[::2, ::3, 0], [[0, 1], [2, 3], [4, 255]])


@pytest.mark.parametrize("channels", [(), (3,), (4,)])
def test_png_keeps_every_pixel(channels):
  array = np.random.default_rng(0).integers(0, 256, (5, 7, *channels), dtype=np.uint8)
  decoded = np.asarray(Image.open(io.BytesIO(writing.png_bytes(array))))
  np.testing.assert_array_equal(decoded, array)


def test_png_of_a_mask_is_black_and_white():
  decoded = np.asarray(Image.open(io.BytesIO(writing.png_bytes(disc()))))
  np.testing.assert_array_equal(decoded, disc() * np.uint8(255))


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: writing.to_uint8(picture()), "uint8 already"),
    (lambda: writing.to_uint8(np.array([np.nan])), "finite"),
    (lambda: writing.to_float(np.zeros(3)), "float64.*expects uint8"),
    (lambda: drawing.overlay(picture() / 255, disc()), "float64.*to_uint8"),
    (lambda: drawing.overlay(picture(), disc(32)), r"\[32, 64\].*needs \[64, 64\]"),
    (lambda: drawing.cutout(picture(), disc() * 255), "spans 0 to 255.*divide"),
    (lambda: drawing.cutout(picture(), disc() * np.nan), "spans nan"),
    (lambda: writing.grid(picture(), 1), r"\[64, 64, 3\].*expects uint8 \[N"),
    (lambda: writing.grid(picture()[None], 0), "columns=0"),
    (lambda: writing.png_bytes(np.zeros((4, 4))), "float64.*to_uint8"),
  ],
)
def test_bad_pictures_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
