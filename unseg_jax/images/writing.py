"""Converts images between the networks' range and bytes, arranges them, and encodes them as files.

All functions use NumPy on the host. Images are uint8 [H, W, 3] in RGB. Networks use float32 in
[-1, 1] (`to_float`, `to_uint8`).
"""

import io

import numpy as np
from PIL import Image

from unseg_jax.array_types import Float, UInt8

# Quality 85 of 100 gives about 42 dB with half the bytes of 95. Method 2 of 6 saves a fifth of the
# bytes of method 0. Method 4 would save another twentieth but take twice as long.
ANIMATION_QUALITY = 85
ANIMATION_METHOD = 2
WEBP_SIDE = 16383  # WebP stores the size less one in 14 bits and the duration (ms) in 24 bits.
WEBP_MILLISECONDS = 2**24 - 1


def to_uint8(images: np.ndarray) -> UInt8[np.ndarray, "..."]:
  """Converts images from the networks' range to bytes.

  Args:
    images: floats of any shape; -1 is black, 1 is full intensity, values outside are clipped.

  Returns:
    uint8 of the same shape, rounded to nearest.

  Raises:
    ValueError: the images are not floats, or hold NaN or infinities.
  """
  images = np.asarray(images)
  values = images.astype(np.float32)
  if images.dtype.kind in "bui" or not np.isfinite(values).all():
    raise ValueError(
      f"to_uint8 got {describe(images)}, but expects finite floats in [-1, 1]; pictures that are "
      "uint8 already need no conversion, and NaN means that their network diverged."
    )
  return np.rint(np.clip(values * 127.5 + 127.5, 0, 255)).astype(np.uint8)


def to_float(images: np.ndarray) -> Float[np.ndarray, "..."]:
  """Converts uint8 images to float32 in [-1, 1]; `to_uint8` inverts it exactly.

  Raises:
    ValueError: the images are not uint8.
  """
  images = np.asarray(images)
  if images.dtype != np.uint8:
    raise ValueError(
      f"to_float got {describe(images)}, but expects uint8 in [0, 255]; "
      "convert pictures in [-1, 1] with to_uint8."
    )
  return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def grid(images: np.ndarray, columns: int) -> UInt8[np.ndarray, "height width 3"]:
  """Arranges images in rows, left to right and top to bottom; unused cells are white.

  Args:
    images: uint8 [N, H, W, 3], N at least 1.
    columns: images per row, at least 1.

  Returns:
    One image, ceil(N / columns) * H high and columns * W wide.

  Raises:
    ValueError: a shape, a dtype or `columns` is not as described.
  """
  images = _check_sequence(images, "grid", "N")
  if columns < 1:
    raise ValueError(f"grid got columns={columns}, but a row holds at least 1 picture.")
  count, height, width, channels = images.shape
  rows = -(-count // columns)
  sheet = np.full((rows * columns, height, width, channels), 255, np.uint8)
  sheet[:count] = images
  sheet = sheet.reshape(rows, columns, height, width, channels)
  return sheet.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)


def there_and_back(frames: np.ndarray) -> UInt8[np.ndarray, "frames h w 3"]:
  """Appends the reversed frames to a sequence, so that it loops without a jump.

  Args:
    frames: uint8 [T, H, W, 3], T at least 1.

  Returns:
    max(1, 2T - 2) frames: 0 to T - 1, then T - 2 down to 1.

  Raises:
    ValueError: the shape or dtype is not as described.
  """
  frames = _check_sequence(frames, "there_and_back", "T")
  return np.concatenate([frames, frames[-2:0:-1]])


def png_bytes(array: np.ndarray) -> bytes:
  """Encodes an image as a PNG file.

  Args:
    array: uint8 [H, W] (grey), [H, W, 3] (RGB) or [H, W, 4] (RGB and opacity), or bool [H, W],
      where True becomes white.

  Raises:
    ValueError: the shape or dtype is none of these.
  """
  array = np.asarray(array)
  if array.dtype == bool and array.ndim == 2:
    array = array.astype(np.uint8) * 255
  drawable = array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))
  if array.dtype != np.uint8 or not drawable or not array.size:
    raise ValueError(
      f"png_bytes got {describe(array)}, but expects uint8 [H, W], [H, W, 3] or [H, W, 4], or "
      "bool [H, W]; convert pictures in [-1, 1] with to_uint8."
    )
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, format="PNG")
  return buffer.getvalue()


def animation_bytes(frames: np.ndarray, seconds_per_frame: float) -> bytes:
  """Encodes frames as an animated WebP file that loops forever.

  Consecutive identical frames become one longer frame.

  Args:
    frames: uint8 [T, H, W, 3], T at least 1, H and W at most 16383.
    seconds_per_frame: the duration of a frame, rounded to milliseconds, from 1 ms to 2^24 - 1 ms.
      Browsers show frames shorter than about 0.02 s for longer.

  Raises:
    ValueError: the shape, the dtype or the duration is not as described.
  """
  frames = _check_sequence(frames, "animation_bytes", "T")
  if max(frames.shape[1:3]) > WEBP_SIDE:
    raise ValueError(
      f"animation_bytes got {describe(frames)}, but WebP allows at most {WEBP_SIDE} pixels a side;"
      " shrink the frames."
    )
  # NaN fails both comparisons.
  if not 1 <= 1000 * seconds_per_frame <= WEBP_MILLISECONDS:
    raise ValueError(
      f"animation_bytes got seconds_per_frame={seconds_per_frame}, but WebP allows 1 to "
      f"{WEBP_MILLISECONDS} milliseconds; use 0.001 to {WEBP_MILLISECONDS / 1000}, such as 0.05."
    )
  first, *others = map(Image.fromarray, frames)
  buffer = io.BytesIO()
  first.save(
    buffer,
    format="WEBP",
    save_all=True,
    append_images=others,
    duration=round(1000 * seconds_per_frame),
    loop=0,
    quality=ANIMATION_QUALITY,
    method=ANIMATION_METHOD,
  )
  return buffer.getvalue()


def _check_sequence(images: np.ndarray, caller: str, axis: str) -> np.ndarray:
  """Returns images as an array; raises a ValueError unless they are uint8 [`axis`, H, W, 3]."""
  images = np.asarray(images)
  if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or not images.size:
    raise ValueError(
      f"{caller} got {describe(images)}, but expects uint8 [{axis}, H, W, 3] with at least one "
      "picture; convert pictures in [-1, 1] with to_uint8."
    )
  return images


def describe(array: np.ndarray) -> str:
  """Describes an array by dtype, shape and range, for error messages."""
  values = f" from {array.min()} to {array.max()}" if array.size else ""
  return f"{array.dtype} {list(array.shape)}{values}"
