"""Composites and animations look as described, and invalid input raises clear errors."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage

from unseg_jax.images import drawing, writing

WHITE = (255, 255, 255)


def picture(height=24, width=36, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def left_half(height=24, width=36):
  return np.arange(width)[None].repeat(height, axis=0) < width // 2


def frames_of(count=4, height=24, width=36):
  """Grey frames, from black to white."""
  levels = np.linspace(0, 255, count).astype(np.uint8)
  return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3))


def decoded(data):
  """The frames of an animation with their milliseconds, and its loop count (0: forever)."""
  with Image.open(io.BytesIO(data)) as animation:
    shown = []
    for index in range(animation.n_frames):
      animation.seek(index)
      shown.append((np.asarray(animation.convert("RGB")).astype(int), animation.info["duration"]))
    return shown, animation.info["loop"]


def test_composite_on_a_colour_keeps_the_foreground_alone():
  image, mask = picture(), left_half()
  result = drawing.composite(image, mask, (10, 20, 30))
  assert result.dtype == np.uint8
  np.testing.assert_array_equal(result[mask], image[mask])
  assert (result[~mask] == (10, 20, 30)).all()


def test_composite_is_blended_by_the_probability():
  image = np.full((2, 2, 3), 200, np.uint8)
  result = drawing.composite(image, np.full((2, 2), 0.25), (100, 0, 40))
  assert (result == (125, 50, 80)).all()


@pytest.mark.parametrize(("height", "width"), [(20, 20), (40, 90), (7, 100)])
def test_background_picture_covers_and_is_centred(height, width):
  """A background of three stripes, each as large as the crop, shows only the middle one."""
  background = np.zeros((100, 300, 3), np.uint8)
  if height * 300 > width * 100:  # Narrower: the sides are cropped.
    start = round((300 - 100 * width / height) / 2)
    background[:, :start], background[:, -start:] = WHITE, WHITE
  else:  # Wider: the top and bottom are cropped.
    start = round((100 - 300 * height / width) / 2)
    background[:start], background[-start:] = WHITE, WHITE
  image = picture(height, width)
  result = drawing.composite(image, np.zeros((height, width)), background)
  assert result.shape == image.shape
  # If the crop ends between two pixels, the outermost pixels include some of the next stripe.
  assert (result[1:-1, 1:-1] == 0).all()
  corner = drawing.composite(image, np.zeros((height, width)), 255 - background)
  assert (corner[1:-1, 1:-1] == 255).all()


def test_background_picture_of_the_same_size_is_left_as_it_is():
  image, background, mask = picture(), picture(seed=1), left_half()
  result = drawing.composite(image, mask, background)
  np.testing.assert_array_equal(result, np.where(mask[..., None], image, background))


def test_fading_starts_as_the_picture_and_ends_as_the_overlay():
  image, mask = picture(), left_half()
  frames = drawing.fading_frames(image, mask)
  height, width = mask.shape
  assert frames.dtype == np.uint8
  assert frames.shape[0] == 16 and frames.shape[1] == height and frames.shape[2] > 2 * width
  np.testing.assert_array_equal(frames[0, :, :width], image)
  overlay = drawing.overlay(image, mask)
  outline = (overlay == drawing.OUTLINE).all(axis=-1)
  np.testing.assert_array_equal(frames[-1, :, :width][~outline], overlay[~outline])
  np.testing.assert_array_equal(frames[-1, :, :width][outline], image[outline])


def test_fading_changes_the_background_alone_and_slowly_at_the_ends():
  mask = left_half()
  frames = drawing.fading_frames(np.full((24, 36, 3), 255, np.uint8), mask).astype(int)
  shown = frames[:, :, : mask.shape[1]]
  assert (shown[:, mask] == 255).all()
  brightness = shown[:, ~mask].mean(axis=(1, 2))
  steps = -np.diff(brightness)
  assert (steps > 0).all()
  assert max(steps[0], steps[-1]) < steps[7] / 5


def test_mask_stands_beside_the_picture_in_every_frame():
  probability = np.where(left_half(), 0.51, 0.49)
  frames = drawing.fading_frames(picture(), probability)
  beside = frames[:, :, -probability.shape[1] :]
  expected = np.where(left_half(), 255, 0)[..., None]
  assert (beside == expected).all()


@pytest.mark.parametrize(
  ("size", "shrunk"),
  [((600, 1024), (300, 512)), ((2000, 3), (512, 1)), ((512, 40), (512, 40)), ((1, 1), (1, 1))],
)
def test_fading_is_at_most_512_pixels_a_side(size, shrunk):
  probability = np.random.default_rng(0).random(size)
  frames = drawing.fading_frames(np.full((*size, 3), 9, np.uint8), probability)
  assert frames.shape[1] == shrunk[0]
  assert 2 * shrunk[1] < frames.shape[2] <= 2 * shrunk[1] + 8
  assert (frames[0, :, : shrunk[1]] == 9).all()


def test_there_and_back_repeats_neither_end():
  frames = frames_of(4)
  result = writing.there_and_back(frames)
  np.testing.assert_array_equal(result, frames[[0, 1, 2, 3, 2, 1]])
  np.testing.assert_array_equal(writing.there_and_back(frames[:2]), frames[:2])
  np.testing.assert_array_equal(writing.there_and_back(frames[:1]), frames[:1])


def test_animation_shows_every_frame_for_its_time_without_end():
  frames = frames_of(5)
  shown, loop = decoded(writing.animation_bytes(frames, 0.0604))
  assert loop == 0
  assert [milliseconds for _, milliseconds in shown] == [60] * 5
  for (image, _), frame in zip(shown, frames, strict=True):
    assert np.abs(image - frame).max() <= 4


def test_frames_that_look_the_same_are_shown_for_longer():
  frames = frames_of(2).repeat(3, axis=0)
  shown, _ = decoded(writing.animation_bytes(frames, 0.1))
  assert [milliseconds for _, milliseconds in shown] == [300, 300]


def test_one_frame_is_a_still_picture():
  frame = np.full((1, 6, 5, 3), 120, np.uint8)
  with Image.open(io.BytesIO(writing.animation_bytes(frame, 0.1))) as image:
    assert image.format == "WEBP" and image.n_frames == 1 and image.size == (5, 6)


def test_animation_of_a_photograph_is_small_and_close():
  """Smooth with some grain, as photographs are."""
  rows, columns = np.mgrid[:128, :128] / 128
  smooth = np.stack([rows, columns, (1 - rows) * columns], axis=-1) * 200
  image = (smooth + np.random.default_rng(0).normal(20, 3, smooth.shape)).clip(0, 255)
  frames = drawing.fading_frames(image.astype(np.uint8), left_half(128, 128))
  data = writing.animation_bytes(frames, 0.05)
  assert len(data) < frames.nbytes / 20
  shown, _ = decoded(data)
  assert np.abs(shown[0][0] - frames[0]).mean() < 4


@pytest.mark.parametrize(
  ("call", "words"),
  [
    (lambda: writing.animation_bytes(frames_of() / 255, 0.1), "float64.*expects uint8.*to_uint8"),
    (lambda: writing.animation_bytes(picture(), 0.1), r"\[24, 36, 3\].*expects uint8 \[T, H, W"),
    (lambda: writing.animation_bytes(frames_of()[:0], 0.1), "at least one picture"),
    (lambda: writing.animation_bytes(frames_of(1, 1, 16384), 0.1), "16384.*at most 16383 pixels"),
    (lambda: writing.animation_bytes(frames_of(), 0), "seconds_per_frame=0, .*such as 0.05"),
    (lambda: writing.animation_bytes(frames_of(), float("nan")), "seconds_per_frame=nan"),
    (lambda: writing.animation_bytes(frames_of(), 1e6), "seconds_per_frame=1000000.0"),
    (lambda: writing.there_and_back(picture()), r"there_and_back got .*expects uint8 \[T, H, W"),
    (lambda: drawing.fading_frames(picture() / 255, left_half()), "float64.*to_uint8"),
    (lambda: drawing.fading_frames(picture(), left_half(7)), r"\[7, 36\].*needs \[24, 36\]"),
    (lambda: drawing.composite(picture(), left_half() * 255, WHITE), "spans 0 to 255.*divide"),
    (lambda: drawing.composite(picture(), left_half(), (0, 0, 256)), "background.*from 0 to 256"),
    (lambda: drawing.composite(picture(), left_half(), (0, 0, -1)), "background.*from -1 to 0"),
    (lambda: drawing.composite(picture(), left_half(), (0.0, 0.5, 1.0)), "three integers"),
    (lambda: drawing.composite(picture(), left_half(), picture() / 255), "background.*to_uint8"),
    (lambda: drawing.composite(picture(), left_half(), picture()[..., 0]), r"\[24, 36\]"),
  ],
)
def test_bad_input_is_named_with_the_way_out(call, words):
  with pytest.raises(ValueError, match=words):
    call()


@given(mask=arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))), steps=st.integers(0, 4))
def test_eroded_masks_are_those_of_scipy(mask, steps):
  before = mask.copy()
  # To scipy, no iterations means to go on until nothing changes.
  expected = ndimage.binary_erosion(mask, iterations=steps, border_value=1) if steps else mask
  np.testing.assert_array_equal(drawing.eroded(mask, steps), expected)
  np.testing.assert_array_equal(mask, before)
