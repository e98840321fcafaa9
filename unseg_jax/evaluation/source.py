"""What every real data set is to the evaluation: pictures with masks, in order."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

Example = tuple[str, np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Source:
  """Pictures with masks, as often as they are asked for.

  Attributes:
    length: how many there are.
    read: starts at a number and yields every so many-th, each as its name, the picture uint8
      [H, W, 3] and the mask bool [H, W], neither resized nor cropped.
  """

  length: int
  read: Callable[[int, int], Iterator[Example]]

  def __len__(self) -> int:
    return self.length

  def __iter__(self) -> Iterator[Example]:
    return self.read(0, 1)


def check_same_size(
  image: np.ndarray, mask: np.ndarray, image_name: str | Path, mask_name: str | Path
) -> None:
  """Checks that a mask [H, W] covers its picture [H, W, 3].

  Raises:
    ValueError: it does not; the message names both.
  """
  if image.shape[:2] != mask.shape:
    raise ValueError(
      f"{mask_name} is {mask.shape[1]} x {mask.shape[0]} pixels, its picture {image_name} is "
      f"{image.shape[1]} x {image.shape[0]}; masks must have the size of their pictures"
    )
