"""The training losses: pixel cross-entropy and soft IoU of images."""

import jax
import jax.numpy as jnp
import optax

from unseg_jax.array_types import AnyArray, Array, Float, Int


def mean_loss(
  logits: Float[AnyArray, "n h w 2"], targets: Int[AnyArray, "n h w"], iou_weight: float
) -> Float[Array, ""]:
  """Returns the mean cross-entropy plus `iou_weight` * (1 - mean soft IoU of the foreground).

  Args:
    logits: channel 1 is foreground.
    targets: 1 for foreground, else 0.
    iou_weight: the weight of the second term (Rahman and Wang, ISVC 2016). It scores an image's
      pixels jointly, favouring foreground at uncertain boundaries. 0 gives the paper's loss.
  """
  # One-hot targets, because XLA spends seconds folding the gradient of an integer label look-up.
  wanted = jax.nn.one_hot(targets, 2, dtype=jnp.float32)
  entropy = optax.softmax_cross_entropy(logits, wanted).mean()
  if not iou_weight:
    return entropy
  probability, mask = jax.nn.softmax(logits)[..., 1], targets.astype(jnp.float32)
  intersection = (probability * mask).sum((1, 2))
  union = (probability + mask - probability * mask).sum((1, 2))
  return entropy + iou_weight * (1.0 - (intersection / jnp.maximum(union, 1.0)).mean())
