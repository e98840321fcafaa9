"""What a search leaves on disk: the direction that is kept, and pictures of it."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unseg_jax.direction import previews
from unseg_jax.direction.previews import Drawing
from unseg_jax.direction.restarts import Scores
from unseg_jax.direction.search import Found
from unseg_jax.images import writing
from unseg_jax.storage import whole_files

FRAME_SECONDS = 0.08  # Of the animated direction.


def write_restarts(
  found: Found, scores: Sequence[Scores], kept: int, drawing: Drawing, folder: Path
) -> list[dict]:
  """Writes how each restart did, and a picture of its directions.

  Args:
    found: what the search found.
    scores: of each restart.
    kept: the restart that is kept.
    drawing: of `previews.prepare`.
    folder: receives `restarts.json` and `restart-*.png`.

  Returns:
    The rows of `restarts.json`.
  """
  for number, directions in enumerate(found.directions):
    picture = previews.still(drawing, directions)
    whole_files.write_bytes(folder / f"restart-{number}.png", writing.png_bytes(picture))
  rows = [
    {"restart": number, "chosen": number == kept, **dataclasses.asdict(score)}
    for number, score in enumerate(scores)
  ]
  whole_files.write_json(folder / "restarts.json", rows)
  return rows


def write(found: Found, kept: int, drawing: Drawing, folder: Path) -> np.ndarray:
  """Writes the restart that is kept: its pictures, its curves, and last its directions.

  Args:
    found: what the search found.
    kept: the restart that is kept.
    drawing: of `previews.prepare`.
    folder: receives `direction.png`, `direction.webp`, `history.json`, `snapshots.npz` and
      `direction.npy`.

  Returns:
    The still picture, `[H, W, 3]` uint8.
  """
  directions = found.directions[kept]
  picture = previews.still(drawing, directions)
  whole_files.write_bytes(folder / "direction.png", writing.png_bytes(picture))
  frames = writing.there_and_back(previews.moving(drawing, directions))
  animation = writing.animation_bytes(frames, FRAME_SECONDS)
  whole_files.write_bytes(folder / "direction.webp", animation)
  whole_files.write_json(folder / "history.json", found.history(kept))
  steps = sorted(found.snapshots)
  moved = np.stack([found.snapshots[step][kept] for step in steps])
  whole_files.write_arrays(folder / "snapshots.npz", step=np.array(steps), directions=moved)
  whole_files.write_array(folder / "direction.npy", directions)
  return picture


def read(folder: Path) -> np.ndarray:
  """Reads the directions that `write` kept: `[K, *latent_shape]` float32."""
  return np.load(folder / "direction.npy", allow_pickle=False)
