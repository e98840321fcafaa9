"""Converts images of any Pillow mode to 8-bit RGB."""

import logging

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from unseg_jax.array_types import Num, UInt8
from unseg_jax.errors import InvalidValue
from unseg_jax.images.colours import to_srgb

log = logging.getLogger(__name__)

# The transform that turns each EXIF orientation upright; orientation 1 is upright.
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
# Pillow multiplies the pixels of such PNG files by these factors, but not their transparent grey.
_GREY_STEPS = {"L;2": 85, "L;4": 17}
# Pillow passes these formats to an external interpreter or to the operating system.
_DRAWN_ELSEWHERE = ("EPS", "WMF")
# An image or mask whose largest value is below this cannot be 8-bit grey. The faintest known masks
# reach 51 (one of CUB's five annotators).
SMALLEST_GREY = 32


def load(image: Image.Image, name: str, turn: bool) -> Image.Image:
  """Decodes an image that is not decoded yet.

  Args:
    image: any Pillow image, such as the result of `PIL.Image.open`; it is not changed.
    name: the name of the image in a warning about its EXIF data.
    turn: whether to apply the EXIF orientation.

  Returns:
    The image. Its transparent colour, if any, is on the scale of its pixels.

  Raises:
    ValueError: Pillow would need an external program to draw the image.
    Exception: the file is damaged; errors of nearly any type occur.
  """
  if image.format in _DRAWN_ELSEWHERE:
    raise InvalidValue(f"{image.format} files are vector drawings, which are not supported")
  transparent = _transparent_colour(image)
  _decode(image)
  turned: Image.Image = image
  # Compared with None, because one of the transforms has the value 0.
  if turn and (method := _turn(image, name)) is not None:
    turned = image.transpose(method)
  if transparent is not None:
    turned = turned.copy() if turned is image else turned
    turned.info["transparency"] = transparent
  return turned


def to_rgb(
  image: Image.Image, name: str = "a picture", turn: bool = True
) -> UInt8[np.ndarray, "h w 3"]:
  """Converts any image to 8-bit sRGB, as described in `reading.read_picture`.

  Args:
    image: the image; it is not changed.
    name: the name of the image in a warning about its EXIF data or its colour profile.
    turn: whether to apply the EXIF orientation.

  Raises:
    ValueError: the scale of its values is ambiguous.
    Exception: the file is damaged; errors of nearly any type occur.
  """
  image = load(image, name, turn)
  colours, opacity = _split(image)
  # Pillow has converted Lab to sRGB, so a profile does not apply.
  profile = None if image.mode == "LAB" else image.info.get("icc_profile")
  rgb = to_srgb(colours, profile, name)
  if opacity is not None:
    rgb.putalpha(opacity)
    rgb = Image.alpha_composite(Image.new("RGBA", rgb.size, "white"), rgb).convert("RGB")
  return np.array(rgb)


def is_deep(image: Image.Image) -> bool:
  """Whether an image is grey with more than 8 bits."""
  return image.mode.startswith(("I", "F"))


def deep_scale(image: Image.Image, values: Num[np.ndarray, "h w"]) -> float:
  """Returns the value of white in a grey image with more than 8 bits.

  White is 65535 for 16-bit images. 32-bit images do not define white. For these it is 1 or 255 if
  no value exceeds that. Otherwise it is the largest integer with as many bits as the largest value,
  such as 4095.

  Args:
    image: the image.
    values: its pixels.

  Raises:
    ValueError: a value is negative or not finite, or the scale is ambiguous.
  """
  # Pillow reads 16-bit PGM files in its 32-bit mode.
  if image.mode.startswith("I;16") or image.format == "PPM":
    return 65535.0
  lowest, highest = float(values.min()), float(values.max())
  # NaN fails the comparison.
  if not (lowest >= 0 and highest < 2**31):
    raise InvalidValue(
      f"its values span {lowest:g} to {highest:g}, not within 0 to 1, 255 or 65535; "
      "save it with 8 or 16 bits per channel"
    )
  if highest <= 1:
    return 1.0
  if values.dtype.kind == "f" and highest < SMALLEST_GREY:
    raise InvalidValue(
      f"its values span {lowest:g} to {highest:g}, where white may be 1 or 255; "
      "save it with 8 or 16 bits per channel"
    )
  return 2.0 ** max(8, int(highest).bit_length()) - 1


def grey_step(image: Image.Image) -> int:
  """Returns the pixel value of level 1 in a 2-bit or 4-bit PNG file; 1 for all other images.

  Args:
    image: an image that is not decoded yet; decoding discards this information.
  """
  return _GREY_STEPS.get(_stored(image), 1)


def _decode(image: Image.Image) -> None:
  if not isinstance(image, TiffImagePlugin.TiffImageFile):
    image.load()
    return
  # When Pillow maps a TIFF file into memory, it swaps the height and width of a rotated image. It
  # does not map a file without a name.
  name, image.filename = image.filename, ""
  try:
    image.load()
  finally:
    image.filename = name


def _turn(image: Image.Image, name: str) -> Image.Transpose | None:
  """Returns the transform that turns an image upright, None if it needs none or has no EXIF."""
  try:
    return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
  # Pillow raises errors of several types for damaged EXIF data.
  except Exception as error:
    reason = " ".join(str(error).split())
    log.warning("%s: it may not be upright, because its EXIF data is damaged: %s", name, reason)
    return None


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
  """Returns the colours, in mode L, RGB or CMYK, and the opacity, if any."""
  if is_deep(image):
    values = np.asarray(image)
    scaled = values.astype(np.float32) * np.float32(255 / deep_scale(image, values))
    return Image.fromarray(np.rint(scaled).astype(np.uint8)), _opacity_of_colour(image)
  if image.mode == "PA" or (image.mode == "P" and image.has_transparency_data):
    image = image.convert("RGBA")
  # These modes store colours multiplied by their opacity.
  elif image.mode in ("La", "RGBa"):
    image = image.convert(image.mode.upper())
  if image.mode in ("LA", "RGBA"):
    return image.convert(image.mode.removesuffix("A")), image.getchannel("A")
  opacity = _opacity_of_colour(image)
  # Otherwise Pillow converts the transparent colour with the pixels, or fails.
  image = image.copy() if "transparency" in image.info else image
  image.info.pop("transparency", None)
  if image.mode == "1":
    return image.convert("L"), opacity
  return image if image.mode in ("L", "CMYK") else image.convert("RGB"), opacity


def _opacity_of_colour(image: Image.Image) -> Image.Image | None:
  """Returns the opacity of an image with one transparent colour."""
  key = image.info.get("transparency")
  if isinstance(key, int) and (is_deep(image) or image.mode in ("1", "L")):
    transparent = np.asarray(image.convert("L") if image.mode == "1" else image) == key
  elif isinstance(key, tuple) and image.mode == "RGB":
    transparent = (np.asarray(image) == np.array(key)).all(axis=-1)
  else:
    return None
  return Image.fromarray(np.where(transparent, 0, 255).astype(np.uint8))


def _transparent_colour(image: Image.Image) -> int | tuple[int, ...] | None:
  """Returns a PNG file's transparent colour where Pillow scales only the pixels."""
  key, step = image.info.get("transparency"), grey_step(image)
  if step > 1 and isinstance(key, int):
    return key * step
  # Pillow keeps the upper 8 of 16 bits.
  if _stored(image) == "RGB;16B" and isinstance(key, tuple):
    return tuple(value >> 8 for value in key)
  return None


def _stored(image: Image.Image) -> str:
  """Returns the pixel storage of a PNG file, which Pillow forgets when it decodes the file."""
  tiles = getattr(image, "tile", None)
  return str(tiles[0].args) if tiles and image.format == "PNG" else ""
