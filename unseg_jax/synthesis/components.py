"""Connected components of a whole batch of masks, exactly, on the device.

Two pixels belong to one component when a path of foreground pixels joins them, each step going to
one of the eight neighbours (scikit-image: `connectivity=2`).

Foreground pixels of one 2 x 2 block always touch each other, so the work is done on blocks: a
quarter of the elements. Each block starts with its own index as label. Every round, blocks that
touch take the smallest label among them, hand it on to the block their old label names, and follow
labels to their labels. The last two steps carry a label far at once, so that even a spiral takes
few rounds. The loop ends when nothing changes, and then the labels are exact.
"""

import jax
import jax.numpy as jnp
from jax import lax


def label_components(masks: jax.Array) -> jax.Array:
  """Labels the 8-connected components of each mask.

  Works under `jit`, `vmap` and `pmap`; the images of a batch do not influence each other.

  Args:
    masks: bool [N, H, W], True in the foreground.

  Returns:
    int32 [N, H, W]: 0 in the background, and in the foreground 1 + the smallest flat index (row * W
    + column) of any pixel of the component. Labels are therefore unique within an image, and grow
    in the order in which the components first appear, but are not consecutive.

  Raises:
    ValueError: if `masks` is not bool [N, H, W].
  """
  _check_masks(masks)
  _, height, width = masks.shape
  blocks = _blocks(masks, False)
  edges = _edges(blocks)
  block_shape = blocks[0].shape
  size = blocks[0].size
  margin = block_shape[2] + 1

  def spread(state):
    labels, _ = state
    # On flat arrays a neighbour is an offset, which is twice as fast on a CPU as shifts in two
    # dimensions. Where an offset wraps into another row or image there is no edge.
    padded = jnp.pad(labels, margin)
    smallest = labels
    for offset, joined in edges:
      neighbour = lax.slice_in_dim(padded, margin - offset, margin - offset + size)
      smallest = jnp.minimum(smallest, jnp.where(joined, neighbour, size))
    # A block that learnt of a smaller label tells the block its old label names ...
    smallest = smallest.at[labels].min(smallest, mode="promise_in_bounds")
    # ... and every block follows its label to that block's label, twice.
    for _ in range(2):
      smallest = smallest.at[smallest].get(mode="promise_in_bounds")
    return smallest, jnp.any(smallest != labels)

  own_labels = jnp.arange(size, dtype=jnp.int32)
  labels, _ = lax.while_loop(lambda state: state[1], spread, (own_labels, jnp.any(masks)))

  # From block indices of the batch to pixel indices of the image.
  pixels = jnp.arange(1, height * width + 1, dtype=jnp.int32).reshape(1, height, width)
  beyond = height * width + 1
  first_of_block = _smallest(_blocks(jnp.where(masks, pixels, beyond), beyond)).ravel()
  first = first_of_block.at[labels].min(first_of_block, mode="promise_in_bounds")
  first = first.at[labels].get(mode="promise_in_bounds").reshape(block_shape)
  return jnp.where(masks, _unblock(first, height, width), 0)


def component_areas(labels: jax.Array) -> jax.Array:
  """Gives each foreground pixel the area of its component, in pixels.

  Args:
    labels: int32 [N, H, W], from `label_components`.

  Returns:
    int32 [N, H, W]: the area of the pixel's component, 0 in the background.

  Raises:
    ValueError: if `labels` is not [N, H, W].
  """
  if labels.ndim != 3:
    raise ValueError(f"labels must be [N, H, W] from label_components, got shape {labels.shape}")
  n, height, width = labels.shape
  blocks = jnp.stack(_blocks(labels, 0))
  # One block holds one component at most: add up blocks, not pixels.
  counts = jnp.sum(blocks > 0, axis=0, dtype=jnp.int32)
  stride = height * width + 1
  offsets = stride * jnp.arange(n, dtype=jnp.int32)[:, None, None]
  bins = jnp.max(blocks, axis=0) + offsets
  areas = jnp.zeros(n * stride, jnp.int32).at[bins].add(counts, mode="promise_in_bounds")
  areas = areas.at[bins].get(mode="promise_in_bounds")
  return jnp.where(labels > 0, _unblock(areas, height, width), 0)


def _check_masks(masks: jax.Array) -> None:
  if masks.ndim != 3 or masks.dtype != jnp.bool_:
    raise ValueError(
      f"masks must be bool [N, H, W], got {masks.dtype} of shape {masks.shape}; "
      "compare with a threshold, or add an axis for a single mask with mask[None]"
    )


def _blocks(images: jax.Array, fill) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Splits [N, H, W] in 2 x 2 blocks: top left, top right, bottom left, bottom right."""
  _, height, width = images.shape
  even = jnp.pad(images, ((0, 0), (0, height % 2), (0, width % 2)), constant_values=fill)
  return even[:, ::2, ::2], even[:, ::2, 1::2], even[:, 1::2, ::2], even[:, 1::2, 1::2]


def _unblock(blocks: jax.Array, height: int, width: int) -> jax.Array:
  """Gives every pixel of [N, height, width] the value of its 2 x 2 block."""
  return jnp.repeat(jnp.repeat(blocks, 2, axis=1), 2, axis=2)[:, :height, :width]


def _smallest(arrays: tuple[jax.Array, ...]) -> jax.Array:
  return jnp.min(jnp.stack(arrays), axis=0)


def _shift(images: jax.Array, rows: int, columns: int) -> jax.Array:
  """Moves [N, H, W] down by `rows` and right by `columns`; 0 or False comes in from outside."""
  padding = [(0, 0, 0), (rows, -rows, 0), (columns, -columns, 0)]
  return lax.pad(images, jnp.zeros((), images.dtype), padding)


def _edges(blocks: tuple[jax.Array, ...]) -> list[tuple[int, jax.Array]]:
  """For each of the eight neighbours: its flat offset, and where a block touches it.

  The neighbour of the block with flat index `i` is block `i - offset`.
  """
  top_left, top_right, bottom_left, bottom_right = blocks
  left = (top_left | bottom_left) & _shift(top_right | bottom_right, 0, 1)
  above = (top_left | top_right) & _shift(bottom_left | bottom_right, 1, 0)
  above_left = top_left & _shift(bottom_right, 1, 1)
  above_right = top_right & _shift(bottom_left, 1, -1)
  width = top_left.shape[2]
  edges = []
  for rows, columns, joined in [
    (0, 1, left),
    (1, 0, above),
    (1, 1, above_left),
    (1, -1, above_right),
  ]:
    offset = rows * width + columns
    edges.append((offset, joined.ravel()))
    edges.append((-offset, _shift(joined, -rows, -columns).ravel()))
  return edges
