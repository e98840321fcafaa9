"""Pictures for people: overlays, cut-outs, grids and PNG files.

Everything here is NumPy on the host. Pictures are uint8 [H, W, 3] in RGB; inside the networks they
are float32 in [-1, 1] (`to_float`, `to_uint8`).
"""

import base64
import io

import numpy as np
from PIL import Image
from scipy import ndimage

OUTLINE = (255, 200, 40)
BACKGROUND_TINT = (14, 20, 44)
BACKGROUND_BRIGHTNESS = 0.3
LUMA = (0.2989, 0.5870, 0.1140)  # The grey of the method itself (arXiv 2105.08127).


def to_uint8(images: np.ndarray) -> np.ndarray:
  """Turns pictures from the networks' range into bytes.

  Args:
    images: float [...], -1 is black and 1 is full intensity; values beyond are clipped.

  Returns:
    uint8 [...], rounded to nearest.

  Raises:
    ValueError: the pictures are not of a floating type, or hold NaN or infinities.
  """
  images = np.asarray(images)
  values = images.astype(np.float32)
  if images.dtype.kind in "bui" or not np.isfinite(values).all():
    raise ValueError(
      f"to_uint8 got {_describe(images)}, but expects finite floats in [-1, 1]; pictures that are "
      "uint8 already need no conversion, and NaN means that the network they come from diverged."
    )
  return np.rint(np.clip(values * 127.5 + 127.5, 0, 255)).astype(np.uint8)


def to_float(images: np.ndarray) -> np.ndarray:
  """Turns uint8 pictures [...] into float32 [...] in [-1, 1]; `to_uint8` takes them back exactly.

  Raises:
    ValueError: the pictures are not uint8.
  """
  images = np.asarray(images)
  if images.dtype != np.uint8:
    raise ValueError(
      f"to_float got {_describe(images)}, but expects uint8 in [0, 255]; "
      "pictures in [-1, 1] are converted by to_uint8."
    )
  return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def overlay(image: np.ndarray, probability: np.ndarray) -> np.ndarray:
  """Keeps the foreground in colour, turns the background dark and blue, and outlines the mask.

  Args:
    image: uint8 [H, W, 3].
    probability: [H, W] in [0, 1], how likely a pixel is foreground; a boolean mask will do. It
      blends the two sides smoothly; the outline runs along probability > 0.5, just inside.

  Returns:
    uint8 [H, W, 3].

  Raises:
    ValueError: a shape, a type or a value is not as described.
  """
  image, probability = _check_pair(image, probability)
  grey = image @ np.array(LUMA, np.float32)
  background = BACKGROUND_BRIGHTNESS * grey[..., None] + np.array(BACKGROUND_TINT, np.float32)
  alpha = probability[..., None]
  blend = np.rint(alpha * image + (1 - alpha) * background).clip(0, 255).astype(np.uint8)
  mask = probability > 0.5
  # About as thin to the eye whatever the size; the picture's border is no outline.
  thickness = max(1, round(min(mask.shape) / 180))
  inside = ndimage.binary_erosion(mask, iterations=thickness, border_value=1)
  blend[mask & ~inside] = OUTLINE
  return blend


def cutout(image: np.ndarray, probability: np.ndarray) -> np.ndarray:
  """Cuts the foreground out: the probability becomes the opacity, so that edges stay smooth.

  Args:
    image: uint8 [H, W, 3].
    probability: [H, W] in [0, 1]; a boolean mask will do.

  Returns:
    uint8 [H, W, 4], RGB and opacity.

  Raises:
    ValueError: a shape, a type or a value is not as described.
  """
  image, probability = _check_pair(image, probability)
  alpha = np.rint(probability * 255).astype(np.uint8)
  return np.concatenate([image, alpha[..., None]], axis=-1)


def grid(images: np.ndarray, columns: int) -> np.ndarray:
  """Lays pictures out in rows, left to right and top to bottom; places left over are white.

  Args:
    images: uint8 [N, H, W, 3], N at least 1.
    columns: pictures per row, at least 1.

  Returns:
    uint8 [ceil(N / columns) * H, columns * W, 3].

  Raises:
    ValueError: a shape, a type or `columns` is not as described.
  """
  images = np.asarray(images)
  if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or not images.size:
    raise ValueError(
      f"grid got {_describe(images)}, but expects uint8 [N, H, W, 3] with at least one picture; "
      "convert pictures in [-1, 1] with to_uint8."
    )
  if columns < 1:
    raise ValueError(f"grid got columns={columns}, but a row holds at least 1 picture.")
  count, height, width, channels = images.shape
  rows = -(-count // columns)
  sheet = np.full((rows * columns, height, width, channels), 255, np.uint8)
  sheet[:count] = images
  sheet = sheet.reshape(rows, columns, height, width, channels)
  return sheet.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)


def png_bytes(array: np.ndarray) -> bytes:
  """Encodes a picture as a PNG file.

  Args:
    array: uint8 [H, W] (grey), [H, W, 3] (RGB) or [H, W, 4] (RGB and opacity), or bool [H, W],
      where True is written as white.

  Raises:
    ValueError: the shape or type is none of these.
  """
  array = np.asarray(array)
  if array.dtype == bool and array.ndim == 2:
    array = array.astype(np.uint8) * 255
  drawable = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))
  if array.dtype != np.uint8 or not drawable or not array.size:
    raise ValueError(
      f"png_bytes got {_describe(array)}, but expects uint8 [H, W], [H, W, 3] or [H, W, 4], or "
      "bool [H, W]; convert pictures in [-1, 1] with to_uint8."
    )
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, format="PNG")
  return buffer.getvalue()


def data_uri(array: np.ndarray) -> str:
  """Returns a picture (see `png_bytes`) as text that an <img> takes for its src."""
  return "data:image/png;base64," + base64.b64encode(png_bytes(array)).decode("ascii")


def _check_pair(image: np.ndarray, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the picture and its probability as float32, or says what is wrong with them."""
  image, probability = np.asarray(image), np.asarray(probability)
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
    raise ValueError(
      f"the picture is {_describe(image)}, but uint8 [H, W, 3] is expected; "
      "convert pictures in [-1, 1] with to_uint8, and grey ones by repeating the channel."
    )
  if probability.shape != image.shape[:2]:
    raise ValueError(
      f"the probability is {_describe(probability)}, but the picture needs "
      f"{list(image.shape[:2])}; resize one to the other, and drop a channel axis."
    )
  probability = probability.astype(np.float32)
  # NaN fails both comparisons, so it is caught as well.
  if not ((probability >= 0) & (probability <= 1)).all():
    raise ValueError(
      f"the probability spans {probability.min():g} to {probability.max():g}, but [0, 1] is "
      "expected; divide a mask of bytes by 255, and pass logits through a softmax first."
    )
  return image, probability


def _describe(array: np.ndarray) -> str:
  """Names an array by type, shape and range, for error messages."""
  values = f" from {array.min()} to {array.max()}" if array.size else ""
  return f"{array.dtype} {list(array.shape)}{values}"
