"""Copy-paste: pastes the foregrounds of training pairs onto other backgrounds, on the device.

A generator shows its objects on its own backgrounds, and a segmenter learns more from these than
from the objects. Since every pair has a mask, its foreground can be pasted onto any background
(Dwibedi, Misra, Hebert: Cut, Paste and Learn, ICCV 2017).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import ml_collections

from unseg_jax.array_types import AnyArray, Array, Bool, Float, Int, Key
from unseg_jax.errors import InvalidValue
from unseg_jax.runtime import parallel
from unseg_jax.segmentation import separable

KINDS = ("plain", "gradient", "noise", "generated", "blurred")
FROM_OTHER_PAIRS = ("generated", "blurred")  # Kinds that use another pair of the batch.
BLURRED = 3.0  # Standard deviation of the blur of the kind `blurred`, in pixels.
EDGE = 0.7  # Standard deviation of the mask's soft edge, in pixels.
NOISE_SIDES = (2, 4, 8, 16, 32)  # Sides of the grids whose sum is the smooth noise.


def check_config(config: ml_collections.ConfigDict) -> None:
  """Raises a ValueError for invalid settings in `config.train.copy_paste`."""
  if not 0 <= config.share <= 1:
    raise InvalidValue(
      f"config.train.copy_paste.share={config.share}: expected a fraction of pairs within [0, 1]"
    )
  if not config.kinds or set(config.kinds) - set(KINDS):
    raise InvalidValue(
      f"config.train.copy_paste.kinds={tuple(config.kinds)}: expected some of {', '.join(KINDS)}"
    )


def replace_all(
  key: Key[Array, ""],
  images: Float[AnyArray, "n h w 3"],
  masks: Bool[AnyArray, "n h w"],
  positions: Int[AnyArray, " n"],
  config: ml_collections.ConfigDict,
) -> Float[Array, "n h w 3"]:
  """Pastes the foregrounds of a fraction of the pairs in a batch onto other backgrounds.

  It runs under `pmap` on this device's part of the batch. The division of a batch over devices does
  not change the result.

  Args:
    key: the PRNG key of the training step.
    images: float32 in [-1, 1].
    masks: True in the foreground.
    positions: the pairs' positions in the global batch.
    config: `config.train` of an experiment.

  Returns:
    The images, in [-1, 1]; the masks do not change.
  """
  size, settings = config.batch_size, config.copy_paste
  # Offset past the positions, from which the step derives its other keys.
  keys = jax.vmap(lambda i: jax.random.fold_in(key, size + i))(positions)
  others: tuple[AnyArray, AnyArray] = images, masks
  if set(FROM_OTHER_PAIRS) & set(settings.kinds):
    batch = jax.lax.all_gather((images, masks), parallel.AXIS, tiled=True)
    distance = jax.random.randint(jax.random.fold_in(key, 2 * size), (), 1, max(size, 2), jnp.int32)
    others = jax.tree.map(lambda x: x[(positions + distance) % size], batch)
  compose = functools.partial(replace, kinds=settings.kinds)
  # A CPU is faster if it processes one pair at a time and computes only the selected kind.
  # Accelerators compute every kind for all pairs at once.
  composed = jax.lax.platform_dependent(
    keys,
    images,
    masks,
    others,
    cpu=lambda *pairs: jax.lax.map(lambda pair: compose(*pair), pairs),
    default=jax.vmap(compose),
  )
  draw = functools.partial(jax.random.bernoulli, p=jnp.float32(settings.share))
  replaced = jax.vmap(lambda key: draw(jax.random.fold_in(key, 2)))(keys)
  return jnp.where(replaced[:, None, None, None], composed, images)


def replace(
  key: Key[Array, ""],
  image: Float[AnyArray, "h w 3"],
  mask: Bool[AnyArray, "h w"],
  other: tuple[Float[AnyArray, "h w 3"], Bool[AnyArray, "h w"]],
  kinds: Sequence[str],
) -> Float[Array, "h w 3"]:
  """Pastes a pair's foreground onto another background.

  Args:
    key: the PRNG key for the kind of background and for the background itself.
    image: float32 in [-1, 1].
    mask: True in the foreground.
    other: another pair. The kind `generated` uses its background. The kind `blurred` uses its full
      image, which teaches the segmenter that an out-of-focus object is background.
    kinds: the kinds of background to choose from, of `KINDS`. A kind listed twice is twice as
      likely.

  Returns:
    The image, in [-1, 1].
  """
  kind_key, background_key = jax.random.split(key)
  height, width = mask.shape
  makers = {
    "plain": lambda: plain(background_key, (height, width)),
    "gradient": lambda: gradient(background_key, (height, width)),
    "noise": lambda: noise(background_key, (height, width)),
    "generated": lambda: elsewhere(background_key, *other),
    "blurred": lambda: out_of_focus(background_key, other[0]),
  }
  listed = tuple(dict.fromkeys(kinds))
  choice = jax.random.randint(kind_key, (), 0, len(kinds), jnp.int32)
  place = jnp.array([listed.index(kind) for kind in kinds], jnp.int32)[choice]
  background = jax.lax.switch(place, [makers[kind] for kind in listed])
  alpha = soft(mask, EDGE)[..., None]
  return alpha * image + (1.0 - alpha) * background


def plain(key: Key[Array, ""], shape: tuple[int, int]) -> Float[Array, "h w 3"]:
  """Returns a single colour in [-1, 1], of the given (height, width)."""
  return jnp.broadcast_to(_colour(key), (*shape, 3))


def gradient(key: Key[Array, ""], shape: tuple[int, int]) -> Float[Array, "h w 3"]:
  """Returns a gradient between two colours in [-1, 1], of the given (height, width)."""
  angle_key, *colour_keys = jax.random.split(key, 3)
  angle = jax.random.uniform(angle_key, (), jnp.float32, maxval=2.0 * jnp.pi)
  axes = (jnp.linspace(-1.0, 1.0, side, dtype=jnp.float32) for side in shape)
  rows, columns = jnp.meshgrid(*axes, indexing="ij")
  position = (jnp.sin(angle) * rows + jnp.cos(angle) * columns) / jnp.sqrt(2.0) / 2.0 + 0.5
  start, end = (_colour(key)[None, None] for key in colour_keys)
  return start + position[..., None] * (end - start)


def noise(key: Key[Array, ""], shape: tuple[int, int]) -> Float[Array, "h w 3"]:
  """Returns smooth multi-scale noise around a colour, in [-1, 1], of the given (height, width)."""
  colour_key, strength_key, *grid_keys = jax.random.split(key, 2 + len(NOISE_SIDES))
  strengths = jax.random.uniform(strength_key, (len(NOISE_SIDES),), jnp.float32, maxval=0.5)
  total = jnp.broadcast_to(_colour(colour_key), (*shape, 3))
  for side, strength, grid_key in zip(NOISE_SIDES, strengths, grid_keys, strict=True):
    grid = jax.random.normal(grid_key, (side, side, 3), jnp.float32)
    total += strength * jax.image.resize(grid, (*shape, 3), "linear")
  return jnp.clip(total, -1.0, 1.0)


def elsewhere(
  key: Key[Array, ""], image: Float[AnyArray, "h w 3"], mask: Bool[AnyArray, "h w"]
) -> Float[Array, "h w 3"]:
  """Returns another pair's background: foreground filled in, then moved, flipped and blurred."""
  shift_key, flip_key, blur_key = jax.random.split(key, 3)
  known = (soft(mask, 2.0) < 0.02).astype(image.dtype)
  rows, columns = _rolls(shift_key, mask.shape)
  mirror = separable.mirror(mask.shape[1], jax.random.bernoulli(flip_key, jnp.float32(0.5)))
  moves = rows, separable.compose(mirror, columns)
  width = jax.random.uniform(blur_key, (), jnp.float32, 0.1, 3.0)
  rows, columns = map(separable.compose, _gaussians(mask.shape, width, 6), moves)
  return separable.apply(rows, columns, fill(image, known))


def out_of_focus(key: Key[Array, ""], image: Float[AnyArray, "h w 3"]) -> Float[Array, "h w 3"]:
  """Returns another pair's full image, including its foreground, moved and blurred."""
  shape = image.shape[:2]
  gaussians = _gaussians(shape, BLURRED, int(3 * BLURRED))
  rows, columns = map(separable.compose, gaussians, _rolls(key, shape))
  return separable.apply(rows, columns, image)


def _rolls(key: Array, shape: Sequence[int]) -> list[Array]:
  """Returns matrices that roll an image by a random number of rows and columns."""
  shifts = jax.random.randint(key, (2,), 0, jnp.array(shape, jnp.int32), jnp.int32)
  return [separable.roll(size, shift) for size, shift in zip(shape, shifts, strict=True)]


def _gaussians(shape: Sequence[int], width: AnyArray | float, reach: int) -> list[Array]:
  """Returns matrices that blur the rows and columns of an image, with replicated borders."""
  return [separable.gaussian(size, width, reach, replicate=True) for size in shape]


def fill(image: Float[AnyArray, "h w c"], known: Float[AnyArray, "h w"]) -> Float[Array, "h w c"]:
  """Fills unknown parts of an image from their surroundings, from coarse to fine.

  Args:
    image: values in any range.
    known: 1 where the image is known, 0 where it is filled.

  Returns:
    The image where it is known; elsewhere an average over an area that grows with the distance.
  """
  height, width, channels = image.shape
  weight = known[..., None]
  if min(height, width) == 1:
    return jnp.broadcast_to(
      (image * weight).sum((0, 1)) / jnp.maximum(weight.sum((0, 1)), 1e-6), image.shape
    )
  padding = ((0, height % 2), (0, width % 2), (0, 0))
  half = ((height + 1) // 2, (width + 1) // 2)

  def pool(values: AnyArray) -> Array:
    values = jnp.pad(values, padding)
    return values.reshape(half[0], 2, half[1], 2, -1).sum((1, 3))

  total = pool(weight)
  small = pool(image * weight) / jnp.maximum(total, 1e-6)
  coarse = fill(small, jnp.minimum(total[..., 0], 1.0))
  coarse = jax.image.resize(coarse, (2 * half[0], 2 * half[1], channels), "linear")
  return weight * image + (1.0 - weight) * coarse[:height, :width]


def soft(mask: Bool[AnyArray, "h w"], width: float) -> Float[Array, "h w"]:
  """Blurs a mask by a Gaussian with a standard deviation of `width` pixels; float32 in [0, 1]."""
  rows, columns = _gaussians(mask.shape, width, int(3 * width + 0.5))
  return separable.apply(rows, columns, mask.astype(jnp.float32)[..., None])[..., 0]


def _colour(key: Array) -> Array:
  return jax.random.uniform(key, (3,), jnp.float32, -1.0, 1.0)
