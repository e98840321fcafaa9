"""What directions do, for people to look at: still and moving."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from unseg_jax.generators import Generator, sample_at
from unseg_jax.images import writing
from unseg_jax.runtime import parallel

SHIFTS = (2.0, 4.0, 6.0)
ROWS = 6
FRAMES = 16  # From no shift to the longest.


@dataclasses.dataclass(frozen=True)
class Drawing:
  """Six latents of a generator, ready to be drawn along any directions; compiled once.

  Attributes:
    at: (directions `[K, *latent_shape]`, radius) -> images `[K, 6, H, W, 3]` at that shift.
    mask: (images `[6, H, W, 3]`, shifted `[K, 6, H, W, 3]`) -> masks as pictures like the images.
    shift: the length of the shift that makes masks.
  """

  at: Callable[[np.ndarray, float], jax.Array]
  mask: Callable[[jax.Array, jax.Array], jax.Array]
  shift: float


def prepare(
  generator: Generator,
  key: jax.Array,
  make_masks: Callable[[jax.Array, jax.Array], jax.Array],
  shift: float,
) -> Drawing:
  """Draws the latents and compiles.

  Args:
    generator: the pretrained generator.
    key: the latents' key.
    make_masks: (images `[N, H, W, 3]`, shifted `[K, N, H, W, 3]`) -> masks `[N, H, W]` bool, by the
      rule of the synthesis.
    shift: the length of the shift that makes masks.
  """
  latents, labels = sample_at(generator, key, jnp.arange(ROWS))
  generate = parallel.jit(
    lambda variables, shift: generator.generate(variables, latents + shift, labels)
  )

  def at(directions, radius):
    shifts = np.float32(radius) * directions
    return jnp.stack([generate(generator.variables, shift) for shift in shifts])

  def mask(images, shifted):
    found = make_masks(images, shifted)[..., None]
    return jnp.broadcast_to(jnp.where(found, 1.0, -1.0), images.shape)

  return Drawing(at, parallel.jit(mask), shift)


def still(drawing: Drawing, directions: np.ndarray) -> np.ndarray:
  """Draws a row for each latent: at shifts 0, 2, 4, 6, and its mask.

  Args:
    drawing: of `prepare`.
    directions: `[K, *latent_shape]`; with `dark`, its shifts stand after those of `light`.

  Returns:
    `[H, W, 3]` uint8.
  """
  images = drawing.at(directions, 0.0)[0]
  moved = [drawing.at(directions, radius) for radius in SHIFTS]
  columns = [images, *(at[k] for k in range(len(directions)) for at in moved)]
  columns.append(drawing.mask(images, drawing.at(directions, drawing.shift)))
  cells = jnp.stack(columns, axis=1).reshape(-1, *images.shape[1:])
  return writing.grid(writing.to_uint8(np.asarray(cells)), columns=len(columns))


def moving(drawing: Drawing, directions: np.ndarray) -> np.ndarray:
  """Draws the latents as the shift grows from 0 to its length, the masks below the images.

  Args:
    drawing: of `prepare`.
    directions: `[K, *latent_shape]`; with `dark`, its images stand below those of `light`.

  Returns:
    `[FRAMES, H, W, 3]` uint8.
  """
  images = drawing.at(directions, 0.0)[0]
  frames = []
  for radius in np.linspace(0.0, drawing.shift, FRAMES):
    moved = drawing.at(directions, radius)
    cells = jnp.concatenate([*moved, drawing.mask(images, moved)])
    frames.append(writing.grid(writing.to_uint8(np.asarray(cells)), columns=ROWS))
  return np.stack(frames)
