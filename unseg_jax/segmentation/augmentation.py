"""Augments training pairs on the device with flips, crops, colour changes (dm_pix) and blur."""

import dm_pix
import jax
import jax.numpy as jnp

from unseg_jax.array_types import AnyArray, Array, Bool, Float, Key
from unseg_jax.segmentation import separable

SMALLEST_CROP = 0.6


def augment(
  key: Key[Array, ""], image: Float[AnyArray, "h w 3"], mask: Bool[AnyArray, "h w"]
) -> tuple[Float[Array, "h w 3"], Bool[Array, "h w"]]:
  """Augments one pair randomly.

  Args:
    key: the PRNG key of all changes.
    image: float32 in [-1, 1].
    mask: True in the foreground.

  Returns:
    The augmented image and mask, in the same ranges.
  """
  flip_key, crop_key, colour_key, blur_key = jax.random.split(key, 4)
  image, mask = _flip_and_crop(flip_key, crop_key, image, mask)
  image = _blur(blur_key, _colour(colour_key, (image + 1.0) / 2.0))
  return jnp.clip(image, 0.0, 1.0) * 2.0 - 1.0, mask


def _flip_and_crop(
  flip_key: Array, crop_key: Array, image: AnyArray, mask: AnyArray
) -> tuple[Array, Array]:
  """Mirrors the pair with probability 0.5, crops a random square, and enlarges the crop."""
  height, width, _ = image.shape
  side_key, place_key = jax.random.split(crop_key)
  share = jax.random.uniform(side_key, (), jnp.float32, SMALLEST_CROP, 1.0)
  place = jax.random.uniform(place_key, (2,), jnp.float32)
  mirror = separable.mirror(width, jax.random.bernoulli(flip_key, jnp.float32(0.5)))
  rows = separable.crop(height, share, place[0])
  columns = separable.compose(separable.crop(width, share, place[1]), mirror)
  planes = jnp.concatenate([image, mask[..., None].astype(image.dtype)], axis=-1)
  planes = separable.apply(rows, columns, planes)
  return planes[..., :3], planes[..., 3] > 0.5


def _colour(key: Array, image: Array) -> Array:
  """Changes the brightness, contrast, saturation and hue of an image in [0, 1]."""
  ranges = ((-0.2, 0.2), (0.7, 1.3), (0.6, 1.4), (-0.05, 0.05))
  # dm_pix's own random functions are not used, because their dtype depends on JAX's settings.
  brightness, contrast, saturation, hue = (
    jax.random.uniform(key, (), jnp.float32, low, high)
    for key, (low, high) in zip(jax.random.split(key, 4), ranges, strict=True)
  )
  image = dm_pix.adjust_brightness(image, brightness)
  image = dm_pix.adjust_contrast(image, contrast)
  image = dm_pix.adjust_saturation(image, saturation)
  return dm_pix.adjust_hue(image, hue)


def _blur(key: Array, image: Array) -> Array:
  """Blurs half of the images, by a standard deviation of up to 1/64 of their height."""
  choice_key, width_key = jax.random.split(key)
  height, width, _ = image.shape
  deviation = jax.random.uniform(width_key, (), jnp.float32, 0.1, height / 64)
  reach = max(3, height // 16 | 1) // 2
  rows, columns = (
    separable.gaussian(size, deviation, reach, replicate=False) for size in (height, width)
  )
  blurred = separable.apply(rows, columns, image)
  return jnp.where(jax.random.bernoulli(choice_key, jnp.float32(0.5)), blurred, image)
