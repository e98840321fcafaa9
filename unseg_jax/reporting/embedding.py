"""Images as `data:` URIs, so that a page is one file."""

import base64
import dataclasses
import io

import numpy as np
from PIL import Image

from unseg_jax.images.writing import png_bytes


@dataclasses.dataclass(frozen=True)
class Embedded:
  """An image of a page: the `src` of its `<img>`, and its size in pixels."""

  uri: str
  width: int
  height: int


def embed(array: np.ndarray) -> Embedded:
  """Embeds an image (see `images.writing.png_bytes`) at its own size."""
  uri = data_uri(array)
  return Embedded(uri, array.shape[1], array.shape[0])


def embed_webp(animation: bytes) -> Embedded:
  """Embeds an animated WebP file.

  Raises:
    ValueError: the bytes are not a WebP file.
  """
  try:
    with Image.open(io.BytesIO(animation), formats=["WEBP"]) as frames:
      width, height = frames.size
  except OSError as error:
    raise ValueError(
      f"the animation, {len(animation):,} bytes, is not a WebP file: {error}. "
      "Delete search/direction.webp, or copy it again."
    ) from error
  return Embedded(f"data:image/webp;base64,{base64.b64encode(animation).decode()}", width, height)


def data_uri(array: np.ndarray) -> str:
  """Returns an image (see `images.writing.png_bytes`) as the `src` of an `<img>`."""
  return "data:image/png;base64," + base64.b64encode(png_bytes(array)).decode("ascii")
