"""Predictions that ignore the image: baselines for the scores of a segmenter."""

import numpy as np

from unseg_jax.array_types import Float


def everything(shape: tuple[int, int]) -> Float[np.ndarray, "h w"]:
  """Predicts foreground everywhere, for a (height, width): ones, float32."""
  return np.ones(shape, np.float32)


def ellipse(shape: tuple[int, int]) -> Float[np.ndarray, "h w"]:
  """Predicts foreground where `(x / 0.8)^2 + (y - 0.05)^2 < 1`, with x and y from -1 to 1.

  Most photographs show their object in this region, and photographs of heads do so even more often.

  Args:
    shape: (height, width) of the image.

  Returns:
    0 or 1, float32.
  """
  y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
  return ((x / 0.8) ** 2 + (y - 0.05) ** 2 < 1).astype(np.float32)


# Baselines by their names in the table.
BASELINES = {"all foreground": everything, "fixed ellipse": ellipse}
