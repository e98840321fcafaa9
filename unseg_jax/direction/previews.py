"""Still and animated previews of what a direction does."""

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
FRAMES = 16  # From no shift to the longest shift.


@dataclasses.dataclass(frozen=True)
class Drawing:
  """Six latents of a generator, with compiled functions that draw them along any direction.

  Attributes:
    at: maps (K directions, radius) to the shifted images of the latents, one batch per direction.
      The images stay on the device.
    mask: maps (images, shifted images of each direction) to masks in the shape and range of images.
    shift: the shift length used for masks.
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
  """Samples the latents and compiles the drawing functions.

  Args:
    generator: the pretrained generator.
    key: the PRNG key of the latents.
    make_masks: maps (images, shifted images) to masks, by the rule of the synthesis stage.
    shift: the shift length used for masks.
  """
  latents, labels = parallel.jit(
    lambda key: sample_at(generator, key, jnp.arange(ROWS, dtype=jnp.int32))
  )(key)
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
  """Draws one row per latent: its images at shifts 0, 2, 4 and 6, then its mask.

  Args:
    drawing: the result of `prepare`.
    directions: `light`, or `light` and `dark`. Columns of `dark` follow those of `light`.
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
  """Draws frames in which the shift grows from 0 to its full length, with masks below the images.

  Args:
    drawing: the result of `prepare`.
    directions: `light`, or `light` and `dark`. Images of `dark` are below those of `light`.
  """
  images = drawing.at(directions, 0.0)[0]
  frames = []
  for radius in np.linspace(0.0, drawing.shift, FRAMES):
    moved = drawing.at(directions, radius)
    cells = np.concatenate(jax.device_get([*moved, drawing.mask(images, moved)]))
    frames.append(writing.grid(writing.to_uint8(cells), columns=ROWS))
  return np.stack(frames)
