"""The common form of all real data sets: images with masks, in order."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from unseg_jax.array_types import Bool, Shaped, UInt8
from unseg_jax.errors import InvalidValue

# The name of an image, the image, and its mask.
Example = tuple[str, UInt8[np.ndarray, "_ _ 3"], Bool[np.ndarray, "_ _"]]


@dataclasses.dataclass(frozen=True)
class Source:
  """A sequence of images with masks that can be read repeatedly.

  Attributes:
    length: the number of images.
    read: yields the examples with indices `first`, `first + step`, ..., neither resized nor
      cropped.
  """

  length: int
  read: Callable[[int, int], Iterator[Example]]

  def __len__(self) -> int:
    return self.length

  def __iter__(self) -> Iterator[Example]:
    return self.read(0, 1)


def check_same_size(
  image: Shaped[np.ndarray, "_ _ ..."],
  mask: Shaped[np.ndarray, "_ _"],
  image_name: str | Path,
  mask_name: str | Path,
) -> None:
  """Checks that a mask has the height and width of its image.

  Raises:
    ValueError: the sizes differ; the message names both files.
  """
  if image.shape[:2] != mask.shape:
    raise InvalidValue(
      f"{mask_name} is {mask.shape[1]} x {mask.shape[0]} pixels, but its picture {image_name} is "
      f"{image.shape[1]} x {image.shape[0]}; resize the mask to the size of its picture"
    )
