"""Foregrounds are pasted onto other backgrounds; the same key gives the same image."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import scipy.ndimage

from unseg_jax.runtime import parallel
from unseg_jax.segmentation import copy_paste

SIZE, COUNT = 32, 24
RED, BLUE = np.float32([0.9, -0.9, -0.9]), np.float32([-0.9, -0.9, 0.9])


def pairs():
  """Red squares on blue, as images and masks."""
  mask = np.zeros((COUNT, SIZE, SIZE), bool)
  mask[:, 8:24, 6:22] = True
  return np.where(mask[..., None], RED, BLUE), mask


def keys(seed=0):
  return jax.random.split(jax.random.key(seed), COUNT)


@functools.cache
def replace(*kinds):
  return jax.jit(jax.vmap(functools.partial(copy_paste.replace, kinds=kinds)))


def treat(images, masks, seed, **changes):
  """Replaces the backgrounds of a batch on one device."""
  key = parallel.replicate(jax.random.key(seed))
  batch = parallel.shard((images, masks, np.arange(COUNT)))
  return parallel.unshard(compiled(**changes)(key, *batch))


@functools.cache
def compiled(**changes):
  config = make_config(**changes)
  return parallel.pmap(functools.partial(copy_paste.replace_all, config=config))


def make_config(**changes):
  settings = {"share": 0.5, "kinds": copy_paste.KINDS} | changes
  return ml_collections.ConfigDict({"batch_size": COUNT, "copy_paste": settings})


def inside(mask):
  """The foreground and background pixels outside the soft edge."""
  soft = np.asarray(jax.vmap(lambda m: copy_paste.soft(m, copy_paste.EDGE))(mask))
  return soft > 0.999, soft < 0.001


@pytest.mark.parametrize("kind", copy_paste.KINDS)
def test_the_background_changes_and_the_foreground_stays(kind):
  images, masks = pairs()
  made = np.asarray(replace(kind)(keys(), images, masks, (images, masks)))
  assert made.shape == images.shape and np.isfinite(made).all() and np.abs(made).max() <= 1
  foreground, background = inside(masks)
  np.testing.assert_allclose(made[foreground], images[foreground], atol=2e-3)
  if kind == "generated":
    # Only the other pair's background is used: no red, even where its red square was.
    np.testing.assert_allclose(made[background], images[background], atol=1e-2)
  elif kind == "blurred":
    # The other pair's square is also used, out of focus: red without sharp edges.
    assert (made[..., 0][background] > 0.7).mean() > 0.05
    both = background[:, 1:] & background[:, :-1]
    assert np.abs(np.diff(made, axis=1))[both].max() < 0.3
  else:
    changed = np.abs(made - images).max(axis=-1) > 0.05
    assert changed[background].mean() > 0.9
    colours = made[:, 0, 0]
    assert len(np.unique(colours.round(2), axis=0)) > COUNT / 2


def test_plain_is_one_colour_and_a_gradient_lies_between_two():
  for seed in range(4):
    key = jax.random.key(seed)
    assert (np.ptp(copy_paste.plain(key, (SIZE, SIZE)), axis=(0, 1)) == 0).all()
    gradient = np.asarray(copy_paste.gradient(key, (SIZE, SIZE)))
    assert np.ptp(gradient, axis=(0, 1)).max() > 0.05
    # Second differences of a linear function are 0.
    assert np.abs(np.diff(gradient, 2, axis=0)).max() < 1e-5
    assert np.abs(np.diff(gradient, 2, axis=1)).max() < 1e-5


def test_as_many_pairs_change_as_the_share_says():
  images, masks = pairs()
  made = [treat(images, masks, seed, share=0.5, kinds=("plain",)) for seed in range(6)]
  changed = np.abs(np.concatenate(made) - np.tile(images, (6, 1, 1, 1))).max(axis=(1, 2, 3)) > 0
  assert 0.35 < changed.mean() < 0.65
  assert (
    treat(images, masks, 0, share=0.5).tobytes() == treat(images, masks, 0, share=0.5).tobytes()
  )
  assert (treat(images, masks, 1, share=0.5) != treat(images, masks, 0, share=0.5)).any()


def noisy(size=SIZE):
  """A noise image with a round mask, which reveals shifts of one pixel."""
  rows, columns = np.mgrid[:size, :size] - size / 2
  image = np.random.default_rng(0).uniform(-1, 1, (size, size, 3)).astype(np.float32)
  return image, np.hypot(rows + 3, columns - 2) < size / 4


def rolled_and_blurred(image, key, flip, width, reach):
  """A reference by filters over pixels."""
  shifts = jax.random.randint(key, (2,), 0, jnp.array(image.shape[:2]))
  moved = np.roll(image, np.asarray(shifts), axis=(0, 1))
  moved = moved[:, ::-1] if flip else moved
  return scipy.ndimage.gaussian_filter(moved, width, mode="nearest", radius=reach, axes=(0, 1))


def test_out_of_focus_is_rolled_and_blurred():
  image, _ = noisy()
  made = jax.jit(jax.vmap(copy_paste.out_of_focus, in_axes=(0, None)))(keys()[:4], image)
  for key, one in zip(keys()[:4], made, strict=True):
    np.testing.assert_allclose(one, rolled_and_blurred(image, key, False, 3.0, 9), atol=1e-6)


def test_elsewhere_is_filled_rolled_flipped_and_blurred():
  image, mask = noisy()
  soft = scipy.ndimage.gaussian_filter(mask.astype(np.float32), 2.0, mode="nearest", radius=6)
  np.testing.assert_allclose(copy_paste.soft(mask, 2.0), soft, atol=1e-6)
  filled = np.asarray(jax.jit(copy_paste.fill)(image, (soft < 0.02).astype(np.float32)))
  made = jax.jit(jax.vmap(copy_paste.elsewhere, in_axes=(0, None, None)))(keys()[:6], image, mask)
  flips = set()
  for key, one in zip(keys()[:6], made, strict=True):
    shift_key, flip_key, blur_key = jax.random.split(key, 3)
    flip = bool(jax.random.bernoulli(flip_key))
    width = float(jax.random.uniform(blur_key, minval=0.1, maxval=3.0))
    expected = rolled_and_blurred(filled, shift_key, flip, width, 6)
    np.testing.assert_allclose(one, expected, atol=1e-6)
    flips.add(flip)
  assert flips == {False, True}


def test_each_pair_is_composed_alone_as_all_at_once_and_on_any_number_of_devices():
  """CPUs compose pairs one at a time; accelerators compose all at once."""
  kinds = ("plain", "blurred", "blurred")
  images = np.random.default_rng(0).uniform(-1, 1, (COUNT, SIZE, SIZE, 3)).astype(np.float32)
  masks = np.random.default_rng(1).random((COUNT, SIZE, SIZE)) > 0.5
  key = jax.random.key(3)
  made = treat(images, masks, 3, share=1.0, kinds=kinds)

  function = functools.partial(copy_paste.replace_all, config=make_config(share=1.0, kinds=kinds))
  devices = jax.jit(jax.vmap(function, axis_name=parallel.AXIS, in_axes=(None, 0, 0, 0)))
  parts = (x.reshape(4, -1, *x.shape[1:]) for x in (images, masks, np.arange(COUNT)))
  np.testing.assert_allclose(devices(key, *parts).reshape(images.shape), made, atol=1e-6)

  distance = jax.random.randint(jax.random.fold_in(key, 2 * COUNT), (), 1, COUNT)
  others = tuple(np.roll(x, -int(distance), axis=0) for x in (images, masks))
  pair_keys = jax.vmap(lambda i: jax.random.fold_in(key, COUNT + i))(np.arange(COUNT))
  at_once = replace(*kinds)(pair_keys, images, masks, others)
  np.testing.assert_allclose(at_once, made, atol=1e-6)


def test_as_often_as_a_kind_is_listed_it_is_drawn():
  image, mask = noisy(8)
  many = jax.random.split(jax.random.key(0), 2000)
  draw = functools.partial(copy_paste.replace, kinds=("plain", "blurred", "blurred", "blurred"))
  made = jax.jit(jax.vmap(draw, in_axes=(0, None, None, None)))(
    many, image, np.zeros_like(mask), (image, mask)
  )
  is_plain = np.ptp(np.asarray(made), axis=(1, 2)).max(axis=-1) < 1e-6
  assert abs(is_plain.mean() - 1 / 4) < 0.04  # Four standard deviations.


def test_a_hole_is_filled_from_around_it():
  rows, columns = np.mgrid[:SIZE, :SIZE] / SIZE
  image = np.stack([rows, columns, rows * 0 + 0.3], axis=-1).astype(np.float32)
  known = np.ones((SIZE, SIZE), np.float32)
  known[10:20, 12:24] = 0
  spoilt = np.where(known[..., None] > 0, image, 7)
  filled = np.asarray(jax.jit(copy_paste.fill)(spoilt, known))
  np.testing.assert_array_equal(filled[known > 0], image[known > 0])
  assert np.abs(filled - image).max() < 0.2
  np.testing.assert_allclose(filled[..., 2], 0.3, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (5, 8), (31, 17)])
def test_any_size_is_filled_even_where_nothing_is_known(shape):
  image = jnp.ones((*shape, 3))
  fill = jax.jit(copy_paste.fill)
  assert np.isfinite(fill(image, jnp.zeros(shape))).all()
  np.testing.assert_allclose(fill(image, jnp.ones(shape)), image)


def test_each_pair_gets_another_ones_background():
  """Images with unique greys, which identify the source of a background."""
  greys = np.linspace(-0.8, 0.8, COUNT, dtype=np.float32)
  mask = pairs()[1]
  images = np.where(mask[..., None], RED, greys[:, None, None, None])
  made = treat(images, mask, 1, share=1.0, kinds=("generated",))
  got = made[:, 0, 0, 0]
  assert (np.abs(got - greys) > 0.05).all()  # No pair receives its own background.
  np.testing.assert_allclose(np.sort(got), greys, atol=1e-2)  # Each background is used once.


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"share": 1.5}, r"copy_paste\.share=1\.5: expected a fraction"),
    ({"kinds": ("plain", "sky")}, r"'sky'.*expected some of plain, gradient, noise, generated"),
    ({"kinds": ()}, r"kinds=\(\): expected some of"),
  ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    copy_paste.check_config(make_config(**changes).copy_paste)
