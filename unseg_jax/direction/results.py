"""Writes the result of a search: the chosen direction, its curves and its previews."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unseg_jax.array_types import Float, UInt8
from unseg_jax.direction import previews
from unseg_jax.direction.previews import Drawing
from unseg_jax.direction.restarts import Scores
from unseg_jax.direction.search import SearchResult
from unseg_jax.images import writing
from unseg_jax.storage import whole_files

FRAME_SECONDS = 0.08  # Duration of a frame of the animated preview.


def write_restarts(
  result: SearchResult, scores: Sequence[Scores], kept: int, drawing: Drawing, folder: Path
) -> list[dict]:
  """Writes the scores and a preview of each restart.

  Args:
    result: the search result.
    scores: the scores of each restart.
    kept: the number of the chosen restart.
    drawing: the result of `previews.prepare`.
    folder: receives `restarts.json` and `restart-*.png`.

  Returns:
    The rows of `restarts.json`.
  """
  for number, directions in enumerate(result.directions):
    picture = previews.still(drawing, directions)
    whole_files.write_bytes(folder / f"restart-{number}.png", writing.png_bytes(picture))
  rows = [
    {"restart": number, "chosen": number == kept, **dataclasses.asdict(score)}
    for number, score in enumerate(scores)
  ]
  whole_files.write_json(folder / "restarts.json", rows)
  return rows


def write(
  result: SearchResult, kept: int, drawing: Drawing, folder: Path
) -> UInt8[np.ndarray, "h w 3"]:
  """Writes the chosen restart: its previews, its curves and finally its directions.

  Args:
    result: the search result.
    kept: the number of the chosen restart.
    drawing: the result of `previews.prepare`.
    folder: receives `direction.png`, `direction.webp`, `history.json`, `snapshots.npz` and
      `direction.npy`.

  Returns:
    The still preview.
  """
  directions = result.directions[kept]
  picture = previews.still(drawing, directions)
  whole_files.write_bytes(folder / "direction.png", writing.png_bytes(picture))
  frames = writing.there_and_back(previews.moving(drawing, directions))
  animation = writing.animation_bytes(frames, FRAME_SECONDS)
  whole_files.write_bytes(folder / "direction.webp", animation)
  whole_files.write_json(folder / "history.json", result.history(kept))
  steps = sorted(result.snapshots)
  moved = np.stack([result.snapshots[step][kept] for step in steps])
  whole_files.write_arrays(folder / "snapshots.npz", step=np.array(steps), directions=moved)
  whole_files.write_array(folder / "direction.npy", directions)
  return picture


def read(folder: Path) -> Float[np.ndarray, " k *latent_shape"]:
  """Reads the float32 directions that `write` saved: `light`, or `light` and `dark`."""
  return np.load(folder / "direction.npy", allow_pickle=False)
