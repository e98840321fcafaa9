"""Answers that look at no picture: what a segmenter's scores have to be held against."""

import numpy as np


def everything(shape: tuple[int, int]) -> np.ndarray:
  """Says that all of a picture is foreground: float32 `[H, W]` of ones."""
  return np.ones(shape, np.float32)


def ellipse(shape: tuple[int, int]) -> np.ndarray:
  """Says that `(x / 0.8)^2 + (y - 0.05)^2 < 1` is foreground, x and y from -1 to 1.

  Most photographs show their object about there, and heads even more so.

  Args:
    shape: the picture's (height, width).

  Returns:
    float32 `[H, W]`, 0 or 1.
  """
  y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
  return ((x / 0.8) ** 2 + (y - 0.05) ** 2 < 1).astype(np.float32)


# What the table calls them.
BASELINES = {"all foreground": everything, "fixed ellipse": ellipse}
