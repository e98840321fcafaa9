"""Visualises a segmenter's predictions as overlays, cut-outs, composites and animations.

All functions use NumPy on the host. Images are uint8 [H, W, 3] in RGB.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageOps

from unseg_jax.array_types import Bool, Float, UInt8
from unseg_jax.images.writing import describe

OUTLINE = (255, 200, 40)
BACKGROUND_TINT = (14, 20, 44)
BACKGROUND_BRIGHTNESS = 0.3
LUMA = (0.2989, 0.5870, 0.1140)  # The grey of the method itself (arXiv 2105.08127).
LONGEST_SIDE = 512  # Limits animations and the images of a page, so that a page stays small.
FADING_STEPS = 16

Views = dict[str, np.ndarray]  # Images by caption.


def overlay(image: np.ndarray, probability: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
  """Keeps the foreground in colour, tints the background dark blue, and outlines the mask.

  Args:
    image: uint8 [H, W, 3].
    probability: [H, W] in [0, 1], the foreground probability; a boolean mask also works. It blends
      foreground and background. The outline runs just inside the region of probability > 0.5.

  Returns:
    The overlay, in the size of the image.

  Raises:
    ValueError: a shape, a dtype or a value is not as described.
  """
  image, probability = _check_pair(image, probability)
  blend = _blend(image, _darkened(image), probability)
  mask = probability > 0.5
  # The outline looks equally thin at every size. The image border is not outlined.
  thickness = max(1, round(min(mask.shape) / 180))
  blend[mask & ~eroded(mask, thickness)] = OUTLINE
  return blend


def eroded(mask: Bool[np.ndarray, "h w"], steps: int) -> Bool[np.ndarray, "h w"]:
  """Takes one pixel off each edge of the mask at every step; the picture's border is no edge.

  `scipy.ndimage.binary_erosion` with a border of 1 does the same; importing it takes 0.2 seconds.
  """
  for _ in range(steps):
    inside = mask.copy()
    inside[1:] &= mask[:-1]
    inside[:-1] &= mask[1:]
    inside[:, 1:] &= mask[:, :-1]
    inside[:, :-1] &= mask[:, 1:]
    mask = inside
  return mask


def cutout(image: np.ndarray, probability: np.ndarray) -> UInt8[np.ndarray, "h w 4"]:
  """Cuts out the foreground; the probability becomes the opacity, so edges stay smooth.

  Args:
    image: uint8 [H, W, 3].
    probability: [H, W] in [0, 1]; a boolean mask also works.

  Returns:
    RGB and opacity.

  Raises:
    ValueError: a shape, a dtype or a value is not as described.
  """
  image, probability = _check_pair(image, probability)
  alpha = np.rint(probability * 255).astype(np.uint8)
  return np.concatenate([image, alpha[..., None]], axis=-1)


def composite(
  image: np.ndarray, probability: np.ndarray, background: Sequence[float] | np.ndarray
) -> UInt8[np.ndarray, "h w 3"]:
  """Puts the foreground on another background, blended by the probability.

  Args:
    image: uint8 [H, W, 3].
    probability: [H, W] in [0, 1]; a boolean mask also works.
    background: a colour, as integers (red, green, blue) in [0, 255], or an image, uint8 [h, w, 3].
      An image is resized to cover `image` with its aspect ratio kept, then cropped to its centre.

  Returns:
    The composite, in the size of the image.

  Raises:
    ValueError: a shape, a dtype or a value is not as described.
  """
  image, probability = _check_pair(image, probability)
  behind = np.asarray(background)
  is_colour = behind.shape == (3,) and behind.dtype.kind in "iu"
  if is_colour and behind.min() >= 0 and behind.max() <= 255:
    return _blend(image, behind.astype(np.float32), probability)
  if behind.dtype != np.uint8 or behind.ndim != 3 or behind.shape[-1] != 3 or not behind.size:
    raise ValueError(
      f"the background is {describe(behind)}, but a colour of three integers in [0, 255], such as "
      "(255, 255, 255), or a picture, uint8 [H, W, 3], is expected; convert pictures in [-1, 1] "
      "with to_uint8."
    )
  height, width = image.shape[:2]
  return _blend(
    image, np.asarray(ImageOps.fit(Image.fromarray(behind), (width, height))), probability
  )


def fading_frames(
  image: np.ndarray, probability: np.ndarray
) -> UInt8[np.ndarray, "16 height width 3"]:
  """Draws frames in which the background fades to the tint of `overlay`, beside the mask.

  The light follows the foreground, as along the direction that the method finds (arXiv
  2105.08127). It changes slowly at both ends, which suits playback with `there_and_back`.

  Args:
    image: uint8 [H, W, 3]; it is shrunk to at most 512 pixels on its longer side.
    probability: [H, W] in [0, 1]; a boolean mask also works. It blends as in `overlay`; the mask is
      probability > 0.5.

  Returns:
    The frames; the first has the brightness of the image. Each frame holds the shrunk image, a gap
    and the mask.

  Raises:
    ValueError: a shape, a dtype or a value is not as described.
  """
  image, probability = _check_pair(image, probability)
  mask = shrink((probability > 0.5).astype(np.float32))
  image, probability = shrink(image), shrink(probability)
  height, width = mask.shape
  gap = max(1, round(max(mask.shape) / 64))
  frames = np.full((FADING_STEPS, height, 2 * width + gap, 3), 255, np.uint8)
  frames[:, :, -width:] = np.rint(mask * 255).astype(np.uint8)[..., None]
  dark = _darkened(image)
  for frame, share in zip(frames, np.linspace(0, 1, FADING_STEPS), strict=True):
    darkness = (1 - np.cos(np.pi * share)) / 2
    frame[:, :width] = _blend(image, dark, 1 - np.float32(darkness) * (1 - probability))
  return frames


def views(image: np.ndarray, probability: np.ndarray) -> Views:
  """Draws the views of an image by name: the image, its probability, cut-out and overlay.

  Args:
    image: uint8 [H, W, 3].
    probability: [H, W] in [0, 1]. If any value is not finite, only the image is returned.

  Returns:
    uint8 images, shrunk to at most 512 pixels on the longer side.

  Raises:
    ValueError: a shape, a dtype or a value is not as described.
  """
  if not np.isfinite(probability).all():
    return {"Image": shrink(image)}
  # Checked before shrinking, which would hide a wrong shape.
  image, probability = map(shrink, _check_pair(image, probability))
  return {
    "Image": image,
    "Probability": np.rint(probability * 255).astype(np.uint8),
    "Cut-out": cutout(image, probability),
    "Overlay": overlay(image, probability),
  }


def _darkened(image: np.ndarray) -> np.ndarray:
  """Returns an image [H, W, 3] in the dark blue background tint, float32 [H, W, 3]."""
  grey = image @ np.array(LUMA, np.float32)
  return BACKGROUND_BRIGHTNESS * grey[..., None] + np.array(BACKGROUND_TINT, np.float32)


def _blend(image: np.ndarray, background: np.ndarray, probability: np.ndarray) -> np.ndarray:
  """Returns the image where the float32 probability is 1 and the background where it is 0."""
  alpha = probability[..., None]
  return np.rint(alpha * image + (1 - alpha) * background).clip(0, 255).astype(np.uint8)


def shrink(
  array: UInt8[np.ndarray, "_ _ ..."] | Float[np.ndarray, "_ _"], side: int = LONGEST_SIDE
) -> UInt8[np.ndarray, "_ _ ..."] | Float[np.ndarray, "_ _"]:
  """Shrinks an image or a map of values in [0, 1] to at most `side` pixels per side.

  It never enlarges, and it keeps the dtype.
  """
  scale = min(1, side / max(array.shape[:2]))
  height, width = (max(1, round(scale * length)) for length in array.shape[:2])
  # Bilinear weights are positive, so values leave [0, 1] only by rounding errors.
  resized = Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR)
  return np.asarray(resized).clip(0, 1 if array.dtype == np.float32 else 255)


def _check_pair(image: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the image and its probability as float32; raises a ValueError if either is invalid."""
  image, probability = np.asarray(image), np.asarray(probability)
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
    raise ValueError(
      f"the picture is {describe(image)}, but uint8 [H, W, 3] is expected; "
      "convert pictures in [-1, 1] with to_uint8, and grey ones by repeating the channel."
    )
  if probability.shape != image.shape[:2]:
    raise ValueError(
      f"the probability is {describe(probability)}, but the picture needs "
      f"{list(image.shape[:2])}; resize one to the other, and drop a channel axis."
    )
  probability = probability.astype(np.float32)
  # NaN fails both comparisons.
  if not ((probability >= 0) & (probability <= 1)).all():
    raise ValueError(
      f"the probability spans {probability.min():g} to {probability.max():g}, but [0, 1] is "
      "expected; divide a mask of bytes by 255, and pass logits through a softmax first."
    )
  return image, probability
