"""What training minimises: the cross-entropy of pixels, and the soft IoU of pictures."""

import jax
import jax.numpy as jnp
import optax

from unseg_jax.array_types import AnyArray, Array, Float, Int


def mean_loss(
  logits: Float[AnyArray, "n h w 2"], targets: Int[AnyArray, "n h w"], iou_weight: float
) -> Float[Array, ""]:
  """The mean cross-entropy, plus `iou_weight` times one minus the mean soft IoU of the foreground.

  Args:
    logits: channel 1 is foreground.
    targets: 1 for foreground, else 0.
    iou_weight: the weight of the second term (Rahman and Wang, ISVC 2016), which counts a picture's
      pixels together and so favours foreground at uncertain borders; 0: the paper's loss.
  """
  # Not by integer labels: XLA folds the gradient of their look-up for seconds.
  wanted = jax.nn.one_hot(targets, 2, dtype=jnp.float32)
  entropy = optax.softmax_cross_entropy(logits, wanted).mean()
  if not iou_weight:
    return entropy
  probability, mask = jax.nn.softmax(logits)[..., 1], targets.astype(jnp.float32)
  intersection = (probability * mask).sum((1, 2))
  union = (probability + mask - probability * mask).sum((1, 2))
  return entropy + iou_weight * (1.0 - (intersection / jnp.maximum(union, 1.0)).mean())
