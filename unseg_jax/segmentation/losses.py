"""What training minimises: the cross-entropy of pixels, and the soft IoU of pictures."""

import jax
import jax.numpy as jnp
import optax


def mean_loss(logits: jax.Array, targets: jax.Array, iou_weight: float) -> jax.Array:
  """The mean cross-entropy, and beside it one minus the mean soft IoU of the foreground.

  Args:
    logits: `[n, H, W, 2]`.
    targets: `[n, H, W]` int32, 1 for foreground.
    iou_weight: the weight of the second term (Rahman and Wang, ISVC 2016), which counts a picture's
      pixels together and so favours foreground at uncertain borders; 0: the paper's loss.
  """
  # Not by integer labels: XLA folds the gradient of their look-up for seconds.
  entropy = optax.softmax_cross_entropy(logits, jax.nn.one_hot(targets, 2)).mean()
  if not iou_weight:
    return entropy
  predicted, wanted = jax.nn.softmax(logits)[..., 1], targets.astype(jnp.float32)
  intersection = (predicted * wanted).sum((1, 2))
  union = (predicted + wanted - predicted * wanted).sum((1, 2))
  return entropy + iou_weight * (1.0 - (intersection / jnp.maximum(union, 1.0)).mean())
