"""Pictures for people: overlays, cut-outs, composites, grids, animations and their files.

Everything here is NumPy on the host. Pictures are uint8 [H, W, 3] in RGB; inside the networks they
are float32 in [-1, 1] (`to_float`, `to_uint8`).
"""

import base64
import io

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

OUTLINE = (255, 200, 40)
BACKGROUND_TINT = (14, 20, 44)
BACKGROUND_BRIGHTNESS = 0.3
LUMA = (0.2989, 0.5870, 0.1140)  # The grey of the method itself (arXiv 2105.08127).
ANIMATION_SIDE = 512
# Of 100; about 42 dB, in half the bytes of 95. Method 2 of 6 saves a fifth of the bytes of 0 and
# takes half the time of 4, which saves a twentieth more.
ANIMATION_QUALITY = 85
ANIMATION_METHOD = 2
FADING_STEPS = 16
WEBP_SIDE = 16383  # The format's limits: 14 bits of size less one, 24 bits of milliseconds.
WEBP_MILLISECONDS = 2**24 - 1


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
  blend = _blend(image, _darkened(image), probability)
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


def composite(
  image: np.ndarray, probability: np.ndarray, background: tuple[int, int, int] | np.ndarray
) -> np.ndarray:
  """Puts the foreground on another background: the probability blends the two.

  Args:
    image: uint8 [H, W, 3].
    probability: [H, W] in [0, 1]; a boolean mask will do.
    background: a colour, (red, green, blue) in [0, 255]; or a picture, uint8 [h, w, 3], which is
      resized to cover `image`, its proportions kept, and cropped to its centre.

  Returns:
    uint8 [H, W, 3].

  Raises:
    ValueError: a shape, a type or a value is not as described.
  """
  image, probability = _check_pair(image, probability)
  behind = np.asarray(background)
  is_colour = behind.shape == (3,) and behind.dtype.kind in "iu"
  if is_colour and behind.min() >= 0 and behind.max() <= 255:
    return _blend(image, behind.astype(np.float32), probability)
  if behind.dtype != np.uint8 or behind.ndim != 3 or behind.shape[-1] != 3 or not behind.size:
    raise ValueError(
      f"the background is {_describe(behind)}, but a colour of three integers in [0, 255], such as "
      "(255, 255, 255), or a picture, uint8 [H, W, 3], is expected; convert pictures in [-1, 1] "
      "with to_uint8."
    )
  height, width = image.shape[:2]
  return _blend(
    image, np.asarray(ImageOps.fit(Image.fromarray(behind), (width, height))), probability
  )


def fading_frames(image: np.ndarray, probability: np.ndarray) -> np.ndarray:
  """Draws the background of a picture fading into `overlay`'s dark tint, the mask beside it.

  The light follows the foreground, as along the direction that the method finds (arXiv
  2105.08127). It changes slowly at both ends, so that the frames may be shown `there_and_back`.

  Args:
    image: uint8 [H, W, 3]; shrunk so that its longer side has at most 512 pixels.
    probability: [H, W] in [0, 1]; a boolean mask will do. It blends as in `overlay`; the mask is
      probability > 0.5.

  Returns:
    uint8 [16, h, w, 3], the first as bright as the picture; w is twice the width of the picture,
    as shrunk, and a gap.

  Raises:
    ValueError: a shape, a type or a value is not as described.
  """
  image, probability = _check_pair(image, probability)
  mask = _shrink((probability > 0.5).astype(np.float32))
  image, probability = _shrink(image), _shrink(probability)
  height, width = mask.shape
  gap = max(1, round(max(mask.shape) / 64))
  frames = np.full((FADING_STEPS, height, 2 * width + gap, 3), 255, np.uint8)
  frames[:, :, -width:] = np.rint(mask * 255).astype(np.uint8)[..., None]
  dark = _darkened(image)
  for frame, share in zip(frames, np.linspace(0, 1, FADING_STEPS), strict=True):
    darkness = (1 - np.cos(np.pi * share)) / 2
    frame[:, :width] = _blend(image, dark, 1 - np.float32(darkness) * (1 - probability))
  return frames


def there_and_back(frames: np.ndarray) -> np.ndarray:
  """Appends the way back to a sequence, so that it may be shown in an endless loop without a jump.

  Args:
    frames: uint8 [T, H, W, 3], T at least 1.

  Returns:
    uint8 [max(1, 2T - 2), H, W, 3]: the frames 0 to T - 1, then T - 2 down to 1.

  Raises:
    ValueError: the shape or type is not as described.
  """
  frames = _check_sequence(frames, "there_and_back", "T")
  return np.concatenate([frames, frames[-2:0:-1]])


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
  images = _check_sequence(images, "grid", "N")
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


def animation_bytes(frames: np.ndarray, seconds_per_frame: float) -> bytes:
  """Encodes frames as an animated WebP file that repeats without end.

  Frames that look the same are joined into one that is shown for longer.

  Args:
    frames: uint8 [T, H, W, 3], T at least 1, H and W at most 16383.
    seconds_per_frame: how long each is shown; rounded to milliseconds, 1 to 2^24 - 1 of them.
      Browsers show frames of less than about 0.02 s for longer.

  Raises:
    ValueError: the shape, the type or the time is not as described.
  """
  frames = _check_sequence(frames, "animation_bytes", "T")
  if max(frames.shape[1:3]) > WEBP_SIDE:
    raise ValueError(
      f"animation_bytes got {_describe(frames)}, but WebP allows at most {WEBP_SIDE} pixels a side;"
      " shrink the frames."
    )
  # NaN fails both comparisons.
  if not 1 <= 1000 * seconds_per_frame <= WEBP_MILLISECONDS:
    raise ValueError(
      f"animation_bytes got seconds_per_frame={seconds_per_frame}, but WebP counts 1 to "
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


def data_uri(array: np.ndarray) -> str:
  """Returns a picture (see `png_bytes`) as text that an <img> takes for its src."""
  return "data:image/png;base64," + base64.b64encode(png_bytes(array)).decode("ascii")


def _darkened(image: np.ndarray) -> np.ndarray:
  """Returns a picture [H, W, 3] as its background looks: dark and blue, float32 [H, W, 3]."""
  grey = image @ np.array(LUMA, np.float32)
  return BACKGROUND_BRIGHTNESS * grey[..., None] + np.array(BACKGROUND_TINT, np.float32)


def _blend(image: np.ndarray, background: np.ndarray, probability: np.ndarray) -> np.ndarray:
  """Returns the picture where the float32 probability is 1, the background where it is 0."""
  alpha = probability[..., None]
  return np.rint(alpha * image + (1 - alpha) * background).clip(0, 255).astype(np.uint8)


def _shrink(array: np.ndarray) -> np.ndarray:
  """Resizes uint8 [H, W, 3] or float32 [H, W] to at most `ANIMATION_SIDE` pixels a side."""
  scale = min(1, ANIMATION_SIDE / max(array.shape[:2]))
  height, width = (max(1, round(scale * side)) for side in array.shape[:2])
  # Bilinear weights are positive: what is in [0, 1] stays there, but for rounding.
  resized = Image.fromarray(array).resize((width, height), Image.Resampling.BILINEAR)
  return np.asarray(resized).clip(0, 1 if array.dtype == np.float32 else 255)


def _check_sequence(images: np.ndarray, caller: str, axis: str) -> np.ndarray:
  """Returns pictures as an array, or says why they are not uint8 [`axis`, H, W, 3]."""
  images = np.asarray(images)
  if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or not images.size:
    raise ValueError(
      f"{caller} got {_describe(images)}, but expects uint8 [{axis}, H, W, 3] with at least one "
      "picture; convert pictures in [-1, 1] with to_uint8."
    )
  return images


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
