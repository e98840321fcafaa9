"""Mask rules: what the shift makes lighter is foreground (arXiv 2105.08127, section 3.2).

Each function is pure, treats the whole batch at once on the device, and works under `jit`. Shapes:
images [N, H, W, 3] float32 in [-1, 1]; masks bool [N, H, W], True in the foreground. Thresholds,
fractions and names of rules are Python values, fixed when a function is compiled.
"""

import jax
import jax.numpy as jnp

from unseg_jax.direction.losses import grey
from unseg_jax.synthesis.components import component_areas, label_components


def lighting_mask(images: jax.Array, shifted: jax.Array) -> jax.Array:
  """Marks the pixels that the shift made lighter: `grey(shifted) - grey(images) > 0`.

  Args:
    images: float32 [N, H, W, 3] in [-1, 1], generated from the latents as drawn.
    shifted: float32 [N, H, W, 3], generated from the latents moved along the direction.

  Returns:
    bool [N, H, W].
  """
  return grey(shifted) - grey(images) > 0


def std_mask(images: jax.Array, shifted: jax.Array) -> jax.Array:
  """Marks the pixels with `grey(shifted) - grey(images) > -0.3 * std`.

  The standard deviation (unbiased) is of the difference over all pixels of all images given, so an
  image's mask depends on the batch around it.

  Args:
    images: float32 [N, H, W, 3] in [-1, 1], generated from the latents as drawn.
    shifted: float32 [N, H, W, 3], generated from the latents moved along the direction.

  Returns:
    bool [N, H, W].
  """
  difference = grey(shifted) - grey(images)
  return difference > -0.3 * jnp.std(difference, ddof=1)


MASK_RULES = {"lighting": lighting_mask, "std": std_mask}


def difference_mask(
  images: jax.Array, shifted: jax.Array, rule: str, invert: bool = False
) -> jax.Array:
  """Makes masks from one direction.

  Args:
    images: float32 [N, H, W, 3] in [-1, 1], generated from the latents as drawn.
    shifted: float32 [N, H, W, 3], generated from the latents moved along the direction.
    rule: 'lighting' (`lighting_mask`) or 'std' (`std_mask`).
    invert: swaps the two images, for a direction that darkens the foreground.

  Returns:
    bool [N, H, W].

  Raises:
    ValueError: if there is no such rule.
  """
  if rule not in MASK_RULES:
    raise ValueError(f"rule must be one of {sorted(MASK_RULES)}, got {rule!r}")
  if invert:
    images, shifted = shifted, images
  return MASK_RULES[rule](images, shifted)


def dual_mask(light: jax.Array, dark: jax.Array) -> jax.Array:
  """Makes masks from two directions: `grey(light) - grey(dark) > 0`.

  Args:
    light: float32 [N, H, W, 3] in [-1, 1], shifted along the direction that lightens the middle.
    dark: float32 [N, H, W, 3], the same latents shifted along the one that darkens the middle.

  Returns:
    bool [N, H, W].
  """
  return grey(light) - grey(dark) > 0


def keep_large_components(masks: jax.Array, fraction: float = 0.2) -> jax.Array:
  """Keeps the 8-connected components that are large compared with the largest of the same mask.

  Args:
    masks: bool [N, H, W].
    fraction: in [0, 1); a component stays if its area is more than this part of the largest one's.

  Returns:
    bool [N, H, W]; an empty mask stays empty.

  Raises:
    ValueError: if `fraction` is outside [0, 1).
  """
  if not 0 <= fraction < 1:
    raise ValueError(
      f"fraction must be in [0, 1), got {fraction}: 0 keeps all components, and from 1 on none "
      "would be left"
    )
  areas = component_areas(label_components(masks))
  largest = jnp.max(areas, axis=(1, 2), keepdims=True)
  return masks & (areas > fraction * largest.astype(jnp.float32))
