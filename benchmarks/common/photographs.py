"""Photograph-like pictures for measurements."""

from pathlib import Path

import numpy as np
from PIL import Image

from unseg_jax.images import reading

EXAMPLE = Path(reading.__file__).parents[1] / "pretrained" / "example" / "astronaut_head.png"


def make_pictures(folder: Path, count: int, size: tuple[int, int]) -> None:
  """Writes JPEG files of one photograph, each with a random rotation, crop and noise.

  Args:
    folder: the folder to create.
    count: number of files.
    size: width and height of each.
  """
  width, height = size
  side = max(size) * 3 // 2
  photograph = Image.fromarray(reading.read_picture(EXAMPLE)).resize((side, side))
  random = np.random.default_rng(0)
  folder.mkdir()
  for number in range(count):
    left, top = random.integers(0, (side - width, side - height))
    picture = photograph.rotate(random.uniform(-20, 20)).crop(
      (left, top, left + width, top + height)
    )
    noisy = np.asarray(picture) + random.normal(0, 4, (height, width, 3))
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / f"{number:06}.jpg")
