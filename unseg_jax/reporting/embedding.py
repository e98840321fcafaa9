"""Pictures within a page, so that it is one file: as `data:` addresses."""

import base64
import dataclasses
import io

import numpy as np
from PIL import Image

from unseg_jax.images.writing import png_bytes


@dataclasses.dataclass(frozen=True)
class Embedded:
  """A picture within a page: its data as an <img> takes them for its src, and its size."""

  uri: str
  width: int
  height: int


def embed(array: np.ndarray) -> Embedded:
  """Makes a picture (see `images.writing.png_bytes`) a part of a page, at its own size."""
  uri = data_uri(array)
  return Embedded(uri, array.shape[1], array.shape[0])


def embed_webp(animation: bytes) -> Embedded:
  """Makes an animated WebP file a part of a page.

  Raises:
    ValueError: the bytes are no WebP.
  """
  try:
    with Image.open(io.BytesIO(animation), formats=["WEBP"]) as frames:
      width, height = frames.size
  except OSError as error:
    raise ValueError(
      f"the animation, {len(animation):,} bytes, is not a WebP file: {error}; make it again."
    ) from error
  return Embedded(f"data:image/webp;base64,{base64.b64encode(animation).decode()}", width, height)


def data_uri(array: np.ndarray) -> str:
  """Returns a picture (see `images.writing.png_bytes`) as what an `<img>` takes for its `src`."""
  return "data:image/png;base64," + base64.b64encode(png_bytes(array)).decode("ascii")
