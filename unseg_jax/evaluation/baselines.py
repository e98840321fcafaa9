"""Answers that look at no picture: what a segmenter's scores have to be held against."""

import numpy as np

from unseg_jax.array_types import Float


def everything(shape: tuple[int, int]) -> Float[np.ndarray, "h w"]:
  """Says that all of a picture of this (height, width) is foreground: ones, float32."""
  return np.ones(shape, np.float32)


def ellipse(shape: tuple[int, int]) -> Float[np.ndarray, "h w"]:
  """Says that `(x / 0.8)^2 + (y - 0.05)^2 < 1` is foreground, x and y from -1 to 1.

  Most photographs show their object in this place, and those of heads even more so.

  Args:
    shape: the picture's (height, width).

  Returns:
    0 or 1, float32.
  """
  y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
  return ((x / 0.8) ** 2 + (y - 0.05) ** 2 < 1).astype(np.float32)


# What the table calls them.
BASELINES = {"all foreground": everything, "fixed ellipse": ellipse}
