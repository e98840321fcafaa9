"""Mask rules: a pixel that the shift lightens is foreground (arXiv 2105.08127, section 3.2).

Each function is pure, processes a batch on the device, and works under `jit`. Images are float32 in
[-1, 1]; masks are True in the foreground. Thresholds, fractions and rule names are Python values,
which compilation fixes.
"""

import jax.numpy as jnp

from unseg_jax.array_types import AnyArray, Array, Bool, Float
from unseg_jax.direction.losses import grey
from unseg_jax.errors import InvalidValue
from unseg_jax.synthesis.components import component_areas, label_components


def lighting_mask(
  images: Float[AnyArray, "n h w 3"], shifted: Float[AnyArray, "n h w 3"]
) -> Bool[Array, "n h w"]:
  """Marks the pixels that the shift lightens: `grey(shifted) - grey(images) > 0`.

  Args:
    images: images of the sampled latents.
    shifted: images of the latents shifted along the direction.
  """
  return grey(shifted) - grey(images) > 0


def std_mask(
  images: Float[AnyArray, "n h w 3"], shifted: Float[AnyArray, "n h w 3"]
) -> Bool[Array, "n h w"]:
  """Marks the pixels with `grey(shifted) - grey(images) > -0.3 * std`.

  The unbiased standard deviation covers all pixels of all images in the batch. The mask of an image
  therefore depends on its batch.

  Args:
    images: images of the sampled latents.
    shifted: images of the latents shifted along the direction.
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
    images: images of the sampled latents.
    shifted: images of the latents shifted along the direction.
    rule: 'lighting' (`lighting_mask`) or 'std' (`std_mask`).
    invert: swaps the two images, for a direction that darkens the foreground.

  Raises:
    ValueError: the rule does not exist.
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
    light: images shifted along the direction that lightens the centre.
    dark: images of the same latents, shifted along the direction that darkens the centre.
  """
  return grey(light) - grey(dark) > 0


def keep_large_components(
  masks: Bool[AnyArray, "n h w"], fraction: float | int = 0.2
) -> Bool[Array, "n h w"]:
  """Keeps the 8-connected components that are large relative to the largest one in the mask.

  An empty mask stays empty.

  Args:
    masks: True in the foreground.
    fraction: in [0, 1). A component is kept if its area exceeds this fraction of the largest area.

  Raises:
    ValueError: `fraction` is outside [0, 1).
  """
  if not 0 <= fraction < 1:
    raise InvalidValue(
      f"fraction must be in [0, 1), got {fraction}: 0 keeps all components, and 1 or more would "
      "remove all of them"
    )
  masks = jnp.asarray(masks)
  areas = component_areas(label_components(masks))
  largest = jnp.max(areas, axis=(1, 2), keepdims=True)
  return masks & (areas > fraction * largest.astype(jnp.float32))
