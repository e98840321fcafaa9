"""Metrics equal the reference implementation's, including edge cases."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unseg_jax.evaluation.metrics import ImageScores, aggregate, image_scores

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics.npz"


def softmax_foreground(logits):
  """[H, W, 2] float32 -> [H, W] float32."""
  powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return powers[..., 1] / powers.sum(axis=-1)


def plain_f_beta(prediction, target):
  """F_beta by its definition, one threshold at a time."""
  hits = (prediction & target).sum()
  precision = hits / prediction.sum() if prediction.any() else 1.0
  recall = hits / target.sum() if target.any() else 1.0
  if precision == recall == 0:
    return 0.0
  return 1.3 * precision * recall / (0.3 * precision + recall)


def test_scores_equal_the_reference():
  with np.load(GOLDEN) as golden:
    scores = []
    for i in range(6):
      probability = softmax_foreground(golden[f"logits_{i}"])
      scores.append(image_scores(probability, golden[f"target_{i}"]))
      assert scores[i].accuracy == pytest.approx(golden[f"accuracy_{i}"], abs=1e-6)
      assert scores[i].iou == pytest.approx(golden[f"iou_{i}"], abs=1e-6)
    result = aggregate(scores)
    papers = ["accuracy", "iou", "f_beta", "f_max"]
    assert list(result) == [*papers, "background_iou", "miou"]
    for name in papers:
      assert result[name] == pytest.approx(golden[name], abs=1e-6), name


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), density=st.sampled_from([0.0, 0.3, 1.0]))
def test_thresholds_equal_plain_comparisons(seed, density):
  """Includes values on a threshold and their neighbouring float32 numbers."""
  rng = np.random.default_rng(seed)
  on_threshold = (rng.integers(0, 256, 60) / 255).astype(np.float32)
  probability = np.concatenate(
    [
      rng.random(60, dtype=np.float32),
      on_threshold,
      np.nextafter(on_threshold, np.float32(0)),
      np.nextafter(on_threshold, np.float32(1)),
    ]
  ).reshape(20, 12)
  target = rng.random((20, 12)) < density
  scores = image_scores(probability, target)
  thresholds = [np.float32(k / 255) for k in range(1, 255)]
  expected = [plain_f_beta(probability > t, target) for t in thresholds]
  np.testing.assert_allclose(scores.f_at_thresholds, expected, rtol=0, atol=1e-12)
  assert scores.f_beta == pytest.approx(plain_f_beta(probability > 0.5, target), abs=1e-12)


def test_bins_change_exactly_at_the_thresholds():
  """Checks every float32 near a threshold by counting comparisons; others cannot change bins."""
  k = np.arange(0, 256)
  steps = np.arange(-200, 201)
  bits = (k / 255).astype(np.float32).view(np.int32)[:, None] + steps
  values = np.clip(bits, 0, np.float32(1).view(np.int32)).astype(np.int32).view(np.float32)
  thresholds = (np.arange(1, 255) / 255).astype(np.float32)
  every = np.ones(values.shape, bool)
  scores = image_scores(values, every)
  # With a full target, F strictly increases with the number of pixels above a threshold.
  above = [np.count_nonzero(values > t) / values.size for t in thresholds]
  expected = [1.3 * recall / (0.3 + recall) for recall in above]
  np.testing.assert_allclose(scores.f_at_thresholds, expected, rtol=0, atol=1e-12)
  for row in values:
    one = [
      image_scores(np.array([[v]]), np.array([[True]])).f_at_thresholds.sum() for v in row[::50]
    ]
    assert one == [np.count_nonzero(v > thresholds) for v in row[::50]]


def test_the_order_of_images_does_not_matter():
  rng = np.random.default_rng(0)
  scores = [ImageScores(*rng.random(3), rng.random(254), rng.random()) for _ in range(50)]
  assert aggregate(scores) == aggregate(scores[::-1]) == aggregate(scores[25:] + scores[:25])


@pytest.mark.parametrize(
  ("predicted", "target", "accuracy", "iou", "f_beta", "background_iou"),
  [
    (0.0, False, 1.0, 0.0, 1.0, 1.0),  # target and prediction are empty, so P = R = 1
    (0.0, True, 0.0, 0.0, 0.0, 0.0),  # P = 1, R = 0
    (1.0, False, 0.0, 0.0, 0.0, 0.0),  # P = 0, R = 1
    (1.0, True, 1.0, 1.0, 1.0, 0.0),  # no background, and none predicted: its union is empty
    (0.5, True, 0.0, 0.0, 0.0, 0.0),  # 0.5 is background
  ],
)
def test_constant_pictures(predicted, target, accuracy, iou, f_beta, background_iou):
  scores = image_scores(np.full((3, 4), predicted), np.full((3, 4), target))
  assert (scores.accuracy, scores.iou, scores.f_beta) == (accuracy, iou, f_beta)
  assert scores.background_iou == background_iou


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_backgrounds_iou_is_that_of_the_opposite_masks(seed):
  rng = np.random.default_rng(seed)
  prediction, target = rng.random((2, 7, 9)) < rng.random()
  scores, opposite = image_scores(prediction, target), image_scores(~prediction, ~target)
  assert (scores.background_iou, scores.iou) == (opposite.iou, opposite.background_iou)
  averages = aggregate([scores])
  assert averages["miou"] == pytest.approx((averages["iou"] + averages["background_iou"]) / 2)


def test_no_overlap_makes_an_undefined_f_zero():
  probability = np.array([[1.0, 0.0]])
  scores = image_scores(probability, probability == 0)
  assert scores.f_beta == 0
  assert not scores.f_at_thresholds.any()


def test_the_maximum_is_of_the_mean_not_the_mean_of_maxima():
  """Two images that are perfect only at different thresholds."""
  target = np.array([[True, False, False, False]])
  bright = image_scores(np.array([[0.9, 0.6, 0.6, 0.6]]), target)
  dark = image_scores(np.array([[0.4, 0.1, 0.1, 0.1]]), target)
  assert bright.f_at_thresholds.max() == dark.f_at_thresholds.max() == 1
  # In between, either one image is all foreground (P = 1/4, R = 1), or the other is empty (F = 0).
  assert aggregate([bright, dark])["f_max"] == pytest.approx((1 + 1.3 * 0.25 / 1.075) / 2)


def test_images_count_alike_whatever_their_size():
  large = image_scores(np.ones((10, 10)), np.ones((10, 10), bool))
  small = image_scores(np.zeros((1, 1)), np.ones((1, 1), bool))
  result = aggregate([large, small])
  assert (result["accuracy"], result["iou"], result["f_beta"]) == (0.5, 0.5, 0.5)


def test_nothing_to_aggregate_is_refused():
  with pytest.raises(ValueError, match="at least one image, got none"):
    aggregate([])


@pytest.mark.parametrize(
  ("probability", "target", "message"),
  [
    (np.zeros((2, 3)), np.zeros((3, 2), bool), r"probability has shape \(2, 3\) and target \(3, 2"),
    (np.zeros((1, 2, 3)), np.zeros((1, 2, 3), bool), r"\[H, W\] of one image, got \(1, 2, 3\)"),
    (np.zeros((0, 3)), np.zeros((0, 3), bool), r"\[H, W\] of one image, got \(0, 3\)"),
    (np.zeros((2, 3)), np.full((2, 3), 255), r"target must be bool, got int64"),
    (np.full((2, 3), 1.5), np.zeros((2, 3), bool), r"lie in \[0, 1\], got values from 1\.5"),
    (np.full((2, 3), np.nan), np.zeros((2, 3), bool), r"lie in \[0, 1\], got values from nan"),
  ],
)
def test_bad_input_is_refused_by_value(probability, target, message):
  with pytest.raises(ValueError, match=message):
    image_scores(probability, target)
