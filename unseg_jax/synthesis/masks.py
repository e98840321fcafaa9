"""Mask rules: what the shift makes lighter is foreground (arXiv 2105.08127, section 3.2).

Each function is pure, treats the whole batch at once on the device, and works under `jit`. Images
are float32 in [-1, 1]; masks are True in the foreground. Thresholds, fractions and names of rules
are Python values, fixed when a function is compiled.
"""

import jax.numpy as jnp

from unseg_jax.array_types import AnyArray, Array, Bool, Float
from unseg_jax.direction.losses import grey
from unseg_jax.errors import InvalidValue
from unseg_jax.synthesis.components import component_areas, label_components


def lighting_mask(
  images: Float[AnyArray, "n h w 3"], shifted: Float[AnyArray, "n h w 3"]
) -> Bool[Array, "n h w"]:
  """Marks the pixels that the shift made lighter: `grey(shifted) - grey(images) > 0`.

  Args:
    images: generated from the latents as drawn.
    shifted: generated from the latents moved along the direction.
  """
  return grey(shifted) - grey(images) > 0


def std_mask(
  images: Float[AnyArray, "n h w 3"], shifted: Float[AnyArray, "n h w 3"]
) -> Bool[Array, "n h w"]:
  """Marks the pixels with `grey(shifted) - grey(images) > -0.3 * std`.

  The standard deviation (unbiased) is of the difference over all pixels of all images given, so an
  image's mask depends on the batch around it.

  Args:
    images: generated from the latents as drawn.
    shifted: generated from the latents moved along the direction.
  """
  difference = grey(shifted) - grey(images)
  return difference > -0.3 * jnp.std(difference, ddof=1)


MASK_RULES = {"lighting": lighting_mask, "std": std_mask}


def difference_mask(
  images: Float[AnyArray, "n h w 3"],
  shifted: Float[AnyArray, "n h w 3"],
  rule: str,
  invert: bool = False,
) -> Bool[Array, "n h w"]:
  """Makes masks from one direction.

  Args:
    images: generated from the latents as drawn.
    shifted: generated from the latents moved along the direction.
    rule: 'lighting' (`lighting_mask`) or 'std' (`std_mask`).
    invert: swaps the two images, for a direction that darkens the foreground.

  Raises:
    ValueError: if there is no such rule.
  """
  if rule not in MASK_RULES:
    raise InvalidValue(f"rule must be one of {sorted(MASK_RULES)}, got {rule!r}")
  if invert:
    images, shifted = shifted, images
  return MASK_RULES[rule](images, shifted)


def dual_mask(
  light: Float[AnyArray, "n h w 3"], dark: Float[AnyArray, "n h w 3"]
) -> Bool[Array, "n h w"]:
  """Makes masks from two directions: `grey(light) - grey(dark) > 0`.

  Args:
    light: the images shifted along the direction that lightens the middle.
    dark: the same latents' images, shifted along the one that darkens the middle.
  """
  return grey(light) - grey(dark) > 0


def keep_large_components(
  masks: Bool[AnyArray, "n h w"], fraction: float | int = 0.2
) -> Bool[Array, "n h w"]:
  """Keeps the 8-connected components that are large compared with the largest of the same mask.

  An empty mask stays empty.

  Args:
    masks: True in the foreground.
    fraction: in [0, 1); a component stays if its area is more than this part of the largest one's.

  Raises:
    ValueError: if `fraction` is outside [0, 1).
  """
  if not 0 <= fraction < 1:
    raise InvalidValue(
      f"fraction must be in [0, 1), got {fraction}: 0 keeps all components, and from 1 on none "
      "would be left"
    )
  masks = jnp.asarray(masks)
  areas = component_areas(label_components(masks))
  largest = jnp.max(areas, axis=(1, 2), keepdims=True)
  return masks & (areas > fraction * largest.astype(jnp.float32))
