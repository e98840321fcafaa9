"""Every real data set as the evaluation reads it: pictures with masks, in order."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from unseg_jax.array_types import Bool, Shaped, UInt8
from unseg_jax.errors import InvalidValue

# A picture's name, the picture, and its mask.
Example = tuple[str, UInt8[np.ndarray, "_ _ 3"], Bool[np.ndarray, "_ _"]]


@dataclasses.dataclass(frozen=True)
class Source:
  """Pictures with masks, as often as they are asked for.

  Attributes:
    length: their number.
    read: yields the examples whose indices are `first`, `first + step`, ..., neither resized nor
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
  """Checks that a mask has its picture's height and width.

  Raises:
    ValueError: it does not; the message names both.
  """
  if image.shape[:2] != mask.shape:
    raise InvalidValue(
      f"{mask_name} is {mask.shape[1]} x {mask.shape[0]} pixels, its picture {image_name} is "
      f"{image.shape[1]} x {image.shape[0]}; masks must have the size of their pictures"
    )
