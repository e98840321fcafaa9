"""Reads and decodes pieces of a training batch; the worker processes of training import this.

This module imports neither JAX nor grain, so a worker process starts within half a second.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from unseg_jax.synthesis import records


def load(places: Sequence[tuple[str, int]], size: int) -> dict[str, np.ndarray]:
  """Reads pairs and resizes those of a different size.

  Args:
    places: the shard of each pair and its index within it, from `records.Split.locate`.
    size: the side of the training images, in pixels.

  Returns:
    `image` `[N, size, size, 3]` and `mask` `[N, size, size, 1]`, uint8.
  """
  pairs = [_fit(records.decode(records.read(*place)), size) for place in places]
  return {name: np.stack([pair[name] for pair in pairs]) for name in ("image", "mask")}


def _fit(record: dict[str, Any], size: int) -> dict[str, np.ndarray]:
  """Returns the image and mask of a record, resized to the training size if necessary."""
  image, mask = record["image"], record["mask"]
  if image.shape[0] != size:
    image = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    mask = Image.fromarray(mask[..., 0]).resize((size, size), Image.Resampling.NEAREST)
    mask = np.asarray(mask)[..., None]
  return {"image": image, "mask": mask}
