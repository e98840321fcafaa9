"""Output files of an image: masks, cut-outs, overlays, composites and animations."""

import contextlib
from collections.abc import Callable, Sequence

import numpy as np
from PIL import ImageColor

from unseg_jax.array_types import Float, UInt8
from unseg_jax.errors import InvalidValue
from unseg_jax.images import reading, writing
from unseg_jax.images.drawing import composite, cutout, fading_frames, overlay
from unseg_jax.storage import places

KINDS = ("mask", "cutout", "overlay")
SECONDS_PER_FRAME = 0.06

# Maps a function that returns the image, called only if needed, and the probability of foreground
# to the bytes of a file.
Encode = Callable[[Callable[[], UInt8[np.ndarray, "h w 3"]], Float[np.ndarray, "h w"]], bytes]
# A colour, or an image of any size.
Background = tuple[int, int, int] | UInt8[np.ndarray, "height width 3"]


def encoders(
  kinds: Sequence[str], background: Background | None, animate: bool
) -> dict[str, Encode]:
  """Returns the encoder of each output, by the ending of the file name.

  Args:
    kinds: a subset of `KINDS`.
    background: a colour or an image onto which the foreground is composited; None: no composite.
    animate: whether to write an animation.

  Raises:
    ValueError: a kind is unknown, or no output is left.
  """
  if unknown := sorted(set(kinds) - set(KINDS)):
    raise InvalidValue(f"--outputs={','.join(unknown)}: expected some of {','.join(KINDS)}")
  of_kinds: dict[str, Encode] = {
    "mask": lambda image, probability: writing.png_bytes(probability > 0.5),
    "cutout": lambda image, probability: writing.png_bytes(cutout(image(), probability)),
    "overlay": lambda image, probability: writing.png_bytes(overlay(image(), probability)),
  }
  by_ending = {f"_{kind}.png": of_kinds[kind] for kind in KINDS if kind in kinds}
  if background is not None:
    by_ending["_composite.png"] = lambda image, probability: writing.png_bytes(
      composite(image(), probability, background)
    )
  if animate:
    by_ending["_animated.webp"] = lambda image, probability: writing.animation_bytes(
      writing.there_and_back(fading_frames(image(), probability)), SECONDS_PER_FRAME
    )
  if not by_ending:
    raise InvalidValue(f"--outputs= leaves nothing to write; expected some of {','.join(KINDS)}")
  return by_ending


def read_background(value: str, max_pixels: int = reading.MAX_PIXELS) -> Background:
  """Parses --background: a colour, or the path of an image.

  Args:
    value: the flag's value.
    max_pixels: an image with more pixels is refused.

  Raises:
    ValueError: the value is neither; the message gives the reason.
  """
  colour: tuple[int, ...] = ()
  with contextlib.suppress(ValueError):
    colour = ImageColor.getrgb(value)
  # A fourth number is an opacity. Pillow does not clip "rgb(300, 0, 0)".
  if len(colour) == 3 and max(colour) <= 255:
    return colour
  path = places.path(value)
  reason = "no such file"
  if path.is_file():
    try:
      return reading.read_picture(path, max_pixels=max_pixels)
    except ValueError as error:
      reason = str(error)
  raise InvalidValue(
    f"--background={value} is neither a colour nor a picture: {reason.rstrip('.')}. Give a name "
    "such as white, a colour such as '#2060a0', or the path of a picture."
  )
