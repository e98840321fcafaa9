"""Pictures of any mode that Pillow knows, as 8-bit RGB."""

import logging

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from unseg_jax.array_types import Num, UInt8
from unseg_jax.errors import InvalidValue
from unseg_jax.images.colours import to_srgb

log = logging.getLogger(__name__)

# How to turn a picture of each EXIF orientation upright; 1 stands upright.
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
# What Pillow multiplies the pixels of such PNG files by, but not their transparent grey.
_GREY_STEPS = {"L;2": 85, "L;4": 17}
# Pillow hands these to another program, which interprets them, or to the system to draw.
_DRAWN_ELSEWHERE = ("EPS", "WMF")
# A picture or mask whose largest value lies below this is no 8-bit grey: the faintest of the masks
# that are known is 51, one of CUB's five annotators.
SMALLEST_GREY = 32


def load(image: Image.Image, name: str, turn: bool) -> Image.Image:
  """Decodes a picture, as far as it is not yet.

  Args:
    image: as `PIL.Image.open` or anything else returns it; it stays as it is.
    name: what a warning about its EXIF calls it.
    turn: whether to turn it upright, if its EXIF orientation says how.

  Returns:
    The picture, whose transparent colour, if it has one, is on the scale of its pixels.

  Raises:
    ValueError: another program would have to draw it.
    Exception: of nearly any type, if the file is damaged.
  """
  if image.format in _DRAWN_ELSEWHERE:
    raise InvalidValue(f"{image.format} files are drawings, which this program does not draw")
  transparent = _transparent_colour(image)
  _decode(image)
  turned: Image.Image = image
  # One of the turns is number 0.
  if turn and (method := _turn(image, name)) is not None:
    turned = image.transpose(method)
  if transparent is not None:
    turned = turned.copy() if turned is image else turned
    turned.info["transparency"] = transparent
  return turned


def to_rgb(
  image: Image.Image, name: str = "a picture", turn: bool = True
) -> UInt8[np.ndarray, "h w 3"]:
  """Converts any picture to 8-bit sRGB, as `reading.read_picture` says.

  Args:
    image: the picture; it stays as it is.
    name: what a warning about its EXIF or its colour profile calls it.
    turn: whether to turn it upright, if its EXIF orientation says how.

  Raises:
    ValueError: its values have no scale that would be plain.
    Exception: of nearly any type, if the file is damaged.
  """
  image = load(image, name, turn)
  colours, opacity = _split(image)
  # What is in Lab needs no profile; Pillow has converted it to sRGB.
  profile = None if image.mode == "LAB" else image.info.get("icc_profile")
  rgb = to_srgb(colours, profile, name)
  if opacity is not None:
    rgb.putalpha(opacity)
    rgb = Image.alpha_composite(Image.new("RGBA", rgb.size, "white"), rgb).convert("RGB")
  return np.array(rgb)


def is_deep(image: Image.Image) -> bool:
  """Whether a picture is grey with more than 8 bits."""
  return image.mode.startswith(("I", "F"))


def deep_scale(image: Image.Image, values: Num[np.ndarray, "h w"]) -> float:
  """The value that is white, of a grey picture of more than 8 bits.

  It is 65535 for 16 bits. 32 bits do not say: it is 1 or 255 where no value exceeds that, and else
  the largest number of as many bits as the largest value has, such as 4095.

  Args:
    image: the picture.
    values: its pixels.

  Raises:
    ValueError: values are negative or no numbers, or their scale is not plain.
  """
  # For 16 bits of PGM, Pillow uses its mode of 32.
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
      f"its values span {lowest:g} to {highest:g}, of which neither 1 nor 255 is plainly white; "
      "save it with 8 or 16 bits per channel"
    )
  return 2.0 ** max(8, int(highest).bit_length()) - 1


def grey_step(image: Image.Image) -> int:
  """The pixel that stands for a 1 of a PNG file of 2 or 4 bits; 1 for others.

  Args:
    image: not yet decoded; later, it does not tell.
  """
  return _GREY_STEPS.get(_stored(image), 1)


def _decode(image: Image.Image) -> None:
  if not isinstance(image, TiffImagePlugin.TiffImageFile):
    image.load()
    return
  # Where Pillow maps a TIFF file into memory, it confuses the height and width of what it turns; it
  # maps none without a name.
  name, image.filename = image.filename, ""
  try:
    image.load()
  finally:
    image.filename = name


def _turn(image: Image.Image, name: str) -> Image.Transpose | None:
  """How to turn a picture upright; None: it stands so, or does not say."""
  try:
    return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
  # Given damaged EXIF, Pillow raises errors of several types.
  except Exception as error:
    reason = " ".join(str(error).split())
    log.warning("%s: it may not stand upright, as its EXIF is damaged: %s", name, reason)
    return None


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
  """The colours, of mode L, RGB or CMYK, and the opacity, if there is any."""
  if is_deep(image):
    values = np.asarray(image)
    scaled = values.astype(np.float32) * np.float32(255 / deep_scale(image, values))
    return Image.fromarray(np.rint(scaled).astype(np.uint8)), _opacity_of_colour(image)
  if image.mode == "PA" or (image.mode == "P" and image.has_transparency_data):
    image = image.convert("RGBA")
  # Colours that are multiplied by their opacity.
  elif image.mode in ("La", "RGBa"):
    image = image.convert(image.mode.upper())
  if image.mode in ("LA", "RGBA"):
    return image.convert(image.mode.removesuffix("A")), image.getchannel("A")
  opacity = _opacity_of_colour(image)
  # Or Pillow would convert the transparent colour along with the pixels, or fail to.
  image = image.copy() if "transparency" in image.info else image
  image.info.pop("transparency", None)
  if image.mode == "1":
    return image.convert("L"), opacity
  return image if image.mode in ("L", "CMYK") else image.convert("RGB"), opacity


def _opacity_of_colour(image: Image.Image) -> Image.Image | None:
  """The opacity of a picture of which one colour is transparent."""
  key = image.info.get("transparency")
  if isinstance(key, int) and (is_deep(image) or image.mode in ("1", "L")):
    transparent = np.asarray(image.convert("L") if image.mode == "1" else image) == key
  elif isinstance(key, tuple) and image.mode == "RGB":
    transparent = (np.asarray(image) == np.array(key)).all(axis=-1)
  else:
    return None
  return Image.fromarray(np.where(transparent, 0, 255).astype(np.uint8))


def _transparent_colour(image: Image.Image) -> int | tuple[int, ...] | None:
  """The transparent colour of a PNG file that Pillow leaves on another scale than its pixels."""
  key, step = image.info.get("transparency"), grey_step(image)
  if step > 1 and isinstance(key, int):
    return key * step
  # Of each 16 bits, Pillow keeps the upper 8.
  if _stored(image) == "RGB;16B" and isinstance(key, tuple):
    return tuple(value >> 8 for value in key)
  return None


def _stored(image: Image.Image) -> str:
  """How a PNG file keeps its pixels, which Pillow knows until it decodes them."""
  tiles = getattr(image, "tile", None)
  return str(tiles[0].args) if tiles and image.format == "PNG" else ""
