"""The training losses."""

import jax
import numpy as np
import optax
import pytest

from unseg_jax import default_config
from unseg_jax.segmentation import step
from unseg_jax.segmentation.losses import mean_loss

SURE = 30.0


def logits_of(mask):
  """Logits that are confident of foreground in the mask."""
  return SURE * np.stack([~mask, mask], axis=-1).astype(np.float32)


def test_without_the_iou_the_loss_is_the_cross_entropy():
  random = np.random.default_rng(0)
  logits = random.normal(size=(3, 8, 8, 2)).astype(np.float32)
  targets = random.integers(0, 2, (3, 8, 8))
  expected = optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()
  np.testing.assert_allclose(mean_loss(logits, targets, 0.0), expected, rtol=1e-6)


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_the_soft_iou_adds_what_the_ious_of_the_pictures_lack_of_one(weight):
  target = np.zeros((2, 4, 8), bool)
  target[:, :, :4] = True
  prediction = target.copy()
  prediction[1] = np.roll(target[1], 2, axis=1)  # The IoUs are 1 and 1/3.
  logits, targets = logits_of(prediction), target.astype(np.int32)
  added = mean_loss(logits, targets, weight) - mean_loss(logits, targets, 0.0)
  np.testing.assert_allclose(added, weight * (1 - (1 + 1 / 3) / 2), rtol=1e-5)


def test_a_picture_without_foreground_keeps_the_gradient_finite():
  targets = np.zeros((1, 4, 4), np.int32)
  gradient = jax.grad(mean_loss)(logits_of(targets > 0), targets, 1.0)
  assert np.isfinite(gradient).all()


def test_an_unsure_pixel_of_a_well_found_head_is_rather_foreground():
  target = np.ones((1, 8, 8), np.int32)
  logits = logits_of(target > 0)
  logits[0, 0, 0] = 0.0
  plain, with_iou = (
    jax.grad(lambda x, w=w: mean_loss(x, target, w))(logits)[0, 0, 0, 1] for w in (0.0, 1.0)
  )
  assert with_iou < plain < 0


def test_a_negative_iou_weight_is_refused():
  config = default_config.get_config()
  config.train.iou_weight = -1.0
  with pytest.raises(ValueError, match=r"config\.train\.iou_weight=-1\.0: expected"):
    step.check_config(config.train)
