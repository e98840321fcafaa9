"""What training minimises: the cross-entropy of pixels, and the overlap of pictures."""

import jax
import jax.numpy as jnp
import optax


def mean_loss(logits: jax.Array, targets: jax.Array, overlap: float) -> jax.Array:
  """The mean cross-entropy, and beside it one minus the mean soft IoU of the foreground.

  Args:
    logits: `[n, H, W, 2]`.
    targets: `[n, H, W]` int32, 1 for foreground.
    overlap: the weight of the second term (Rahman and Wang, ISVC 2016), which counts a picture's
      pixels together, so that an unsure border is rather foreground than lost; 0: the paper's loss.
  """
  # Not by integer labels: XLA folds the gradient of their look-up for seconds.
  entropy = optax.softmax_cross_entropy(logits, jax.nn.one_hot(targets, 2)).mean()
  if not overlap:
    return entropy
  found, wanted = jax.nn.softmax(logits)[..., 1], targets.astype(jnp.float32)
  common = (found * wanted).sum((1, 2))
  union = (found + wanted - found * wanted).sum((1, 2))
  return entropy + overlap * (1.0 - (common / jnp.maximum(union, 1.0)).mean())
