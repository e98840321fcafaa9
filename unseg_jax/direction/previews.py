"""What directions do, for people to look at: still and moving."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from unseg_jax.array_types import Array, Bool, Float, Key, UInt8
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
    at: (K directions, radius) -> for each direction, the latents' images at that shift, which stay
      on the device.
    mask: (images, shifted images of each direction) -> masks as pictures like the images.
    shift: the length of the shift that makes masks.
  """

  at: Callable[
    [Float[np.ndarray, " k *latent_shape"], float | np.floating], list[Float[Array, "n h w 3"]]
  ]
  mask: Callable[[Float[Array, "n h w 3"], list[Float[Array, "n h w 3"]]], Float[Array, "n h w 3"]]
  shift: float


def prepare(
  generator: Generator,
  key: Key[Array, ""],
  make_masks: Callable[[Float[Array, "n h w 3"], Float[Array, "k n h w 3"]], Bool[Array, "n h w"]],
  shift: float,
) -> Drawing:
  """Draws the latents and compiles.

  Args:
    generator: the pretrained generator.
    key: the latents' key.
    make_masks: (images, shifted images) -> masks, by the rule of the synthesis.
    shift: the length of the shift that makes masks.
  """
  latents, labels = parallel.jit(lambda key: sample_at(generator, key, jnp.arange(ROWS)))(key)
  generate = parallel.jit(
    lambda variables, latents, labels, shift: generator.generate(
      variables, latents + shift[None], labels
    )
  )
  variables = jax.device_put(generator.variables)

  def at(directions, radius):
    shifts = jax.device_put(list(np.float32(radius) * directions))
    return [generate(variables, latents, labels, shift) for shift in shifts]

  def mask(images, shifted):
    masks = make_masks(images, jnp.stack(shifted))[..., None]
    return jnp.broadcast_to(jnp.where(masks, 1.0, -1.0), images.shape)

  return Drawing(at, parallel.jit(mask), shift)


def still(
  drawing: Drawing, directions: Float[np.ndarray, " k *latent_shape"]
) -> UInt8[np.ndarray, "h w 3"]:
  """Draws a row for each latent: at shifts 0, 2, 4, 6, and its mask.

  Args:
    drawing: of `prepare`.
    directions: `light`, or `light` and `dark`; the shifts of `dark` come after those of `light`.
  """
  images = drawing.at(directions, 0.0)[0]
  moved = [drawing.at(directions, radius) for radius in SHIFTS]
  columns = [images, *(at[k] for k in range(len(directions)) for at in moved)]
  columns.append(drawing.mask(images, drawing.at(directions, drawing.shift)))
  cells = np.stack(jax.device_get(columns), axis=1).reshape(-1, *images.shape[1:])
  return writing.grid(writing.to_uint8(cells), columns=len(columns))


def moving(
  drawing: Drawing, directions: Float[np.ndarray, " k *latent_shape"]
) -> UInt8[np.ndarray, "frames h w 3"]:
  """Draws the latents as the shift grows from 0 to its length, the masks below the images.

  Args:
    drawing: of `prepare`.
    directions: `light`, or `light` and `dark`; the images of `dark` come below those of `light`.
  """
  images = drawing.at(directions, 0.0)[0]
  frames = []
  for radius in np.linspace(0.0, drawing.shift, FRAMES):
    moved = drawing.at(directions, radius)
    cells = np.concatenate(jax.device_get([*moved, drawing.mask(images, moved)]))
    frames.append(writing.grid(writing.to_uint8(cells), columns=ROWS))
  return np.stack(frames)
