"""Augmentation randomly changes images, and each mask together with its image."""

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unseg_jax.segmentation import augmentation

SIZE, COUNT = 64, 32


@pytest.fixture(scope="module")
def augment():
  return jax.jit(jax.vmap(augmentation.augment))


def pairs():
  """Copies of one pair: a grey image that is light exactly where its mask is True."""
  mask = np.zeros((COUNT, SIZE, SIZE), bool)
  mask[:, 10:50, 6:34] = True
  image = np.where(mask[..., None], 0.5, -0.5).astype(np.float32).repeat(3, axis=-1)
  return image, mask


def keys(seed=0):
  return jax.random.split(jax.random.key(seed), COUNT)


def test_shapes_types_and_ranges_stay(augment):
  noise = np.random.default_rng(0).uniform(-1, 1, (COUNT, SIZE, SIZE, 3)).astype(np.float32)
  image, mask = augment(keys(), noise, noise[..., 0] > 0)
  assert image.shape == noise.shape and image.dtype == jnp.float32
  assert mask.shape == noise.shape[:3] and mask.dtype == bool
  assert np.isfinite(image).all() and jnp.abs(image).max() <= 1
  assert 0.3 < mask.mean() < 0.7


def test_image_and_mask_stay_aligned(augment):
  images, masks = augment(keys(), *pairs())
  for image, mask in zip(np.asarray(images[..., 0]), np.asarray(masks), strict=True):
    light = image > (image.min() + image.max()) / 2
    # Blur may shift the outline by a pixel; a missed flip would change half of all pixels.
    assert (light == mask).mean() > 0.97


def test_flips_and_crops_happen_and_differ_between_keys(augment):
  before, masks = pairs()[1], np.asarray(augment(keys(), *pairs())[1])
  assert len(np.unique(masks.reshape(COUNT, -1), axis=0)) > COUNT / 2
  left = masks[:, :, : SIZE // 2].sum(axis=(1, 2)) > masks[:, :, SIZE // 2 :].sum(axis=(1, 2))
  assert 0.2 < left.mean() < 0.8  # Before augmentation, all objects are on the left.
  # A crop enlarges each side by a factor below 1 / 0.6.
  assert masks.sum() > before.sum()
  assert masks.sum(axis=(1, 2)).max() <= 1.05 * before[0].sum() / 0.6**2


def test_colours_and_sharpness_change(augment):
  coloured = np.broadcast_to(np.float32([0.4, 0.0, -0.4]), (COUNT, SIZE, SIZE, 3))
  images = np.asarray(augment(keys(), coloured, np.ones((COUNT, SIZE, SIZE), bool))[0])
  assert (images[:, 20:40, 20:40].mean(axis=(1, 2)).std(axis=0) > 0.02).all()


def test_the_key_alone_decides(augment):
  first, again, other = (augment(keys(seed), *pairs()) for seed in (0, 0, 1))
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert (np.asarray(first[0]) != np.asarray(other[0])).any(axis=(1, 2, 3)).all()
  alone = augmentation.augment(keys()[5], pairs()[0][5], pairs()[1][5])
  np.testing.assert_array_equal(alone[1], first[1][5])
  np.testing.assert_allclose(alone[0], first[0][5], atol=1e-5)


def filtered(key, image, mask):
  """A reference for `augment` by filters over pixels."""
  flip_key, crop_key, colour_key, blur_key = jax.random.split(key, 4)
  planes = jnp.concatenate([image, mask[..., None].astype(image.dtype)], axis=-1)
  planes = jnp.where(jax.random.bernoulli(flip_key), planes[:, ::-1], planes)

  side_key, place_key = jax.random.split(crop_key)
  scale = 1 / jax.random.uniform(side_key, minval=0.6, maxval=1.0)
  translation = -jax.random.uniform(place_key, (2,)) * (scale - 1) * SIZE
  planes = jax.image.scale_and_translate(
    planes, planes.shape, (0, 1), jnp.full(2, scale), translation, "linear", antialias=False
  )
  image, mask = (planes[..., :3] + 1) / 2, planes[..., 3] > 0.5

  keys = jax.random.split(colour_key, 4)
  image = dm_pix.random_brightness(keys[0], image, 0.2)
  image = dm_pix.random_contrast(keys[1], image, 0.7, 1.3)
  image = dm_pix.random_saturation(keys[2], image, 0.6, 1.4)
  image = dm_pix.random_hue(keys[3], image, 0.05)

  choice_key, width_key = jax.random.split(blur_key)
  sigma = jax.random.uniform(width_key, minval=0.1, maxval=SIZE / 64)
  blurred = dm_pix.gaussian_blur(image, sigma, kernel_size=5)
  image = jnp.where(jax.random.bernoulli(choice_key), blurred, image)
  return jnp.clip(image, 0, 1) * 2 - 1, mask


def test_products_along_the_axes_do_what_filters_do(augment):
  generator = np.random.default_rng(0)
  images = generator.uniform(-1, 1, (COUNT, SIZE, SIZE, 3)).astype(np.float32)
  masks = generator.random((COUNT, SIZE, SIZE)) > 0.5
  made = augment(keys(), images, masks)
  expected = jax.jit(jax.vmap(filtered))(keys(), images, masks)
  np.testing.assert_allclose(made[0], expected[0], atol=1e-4)
  np.testing.assert_array_equal(made[1], expected[1])
