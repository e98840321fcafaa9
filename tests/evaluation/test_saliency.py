"""Saliency metrics equal the library's, stay finite in edge cases and ignore the order."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unseg_jax.evaluation import saliency

NAMES = ["mae", "s_measure", "e_measure", "weighted_f"]


@pytest.fixture(scope="module", autouse=True)
def library():
  return pytest.importorskip("py_sod_metrics")


def disc(radius, size=64):
  y, x = np.mgrid[:size, :size] - size / 2
  return np.hypot(x, y) < radius


def test_scores_equal_the_library_on_the_pictures_it_reads(library):
  """Three 8-bit images through the library's own accumulation, as its users run it."""
  rng = np.random.default_rng(0)
  evaluators = [
    library.MAE(),
    library.Smeasure(),
    library.Emeasure(),
    library.WeightedFmeasure(),
  ]
  scores = []
  for radius in (10, 18, 25):
    target = disc(radius)
    grey = np.clip(200 * target + rng.normal(30, 25, target.shape), 0, 255).astype(np.uint8)
    for evaluator in evaluators:
      evaluator.step(grey, target.astype(np.uint8) * 255)
    scores.append(saliency.saliency_scores(grey / 255, target))
  mae, s, e, weighted = (evaluator.get_results() for evaluator in evaluators)
  expected = [mae["mae"], s["sm"], e["em"]["curve"].mean(), weighted["wfm"]]
  result = saliency.aggregate(scores)
  assert list(result) == NAMES
  np.testing.assert_allclose(list(result.values()), expected, rtol=0, atol=1e-12)


def test_a_perfect_prediction_is_perfect():
  target = disc(20)
  scores = saliency.saliency_scores(target.astype(np.float32), target)
  assert scores["mae"] == 0
  assert scores["s_measure"] == pytest.approx(1)
  # All 256 thresholds except the first, which even the background passes.
  assert scores["e_measure"] == pytest.approx(1, abs=0.004)
  assert scores["weighted_f"] == pytest.approx(1)


def test_better_predictions_score_better():
  target = disc(20)
  good, bad = (saliency.saliency_scores(disc(r) * 1.0, target) for r in (18, 10))
  assert good["mae"] < bad["mae"]
  assert all(good[name] > bad[name] for name in NAMES[1:])


def test_probabilities_are_rounded_to_8_bits():
  target = disc(20)
  probability = np.random.default_rng(0).integers(0, 256, target.shape) / 255
  expected = saliency.saliency_scores(probability, target)
  shift = np.where(disc(15), 0.49, -0.49) / 255
  moved = np.clip(probability + shift, 0, 1)
  assert saliency.saliency_scores(moved, target) == expected


@pytest.mark.parametrize(
  ("predicted", "target", "mae", "s_measure", "e_measure", "weighted_f"),
  [
    (0.0, False, 0, 1, 1, 0),  # Target and prediction are empty, but F is still 0.
    (0.0, True, 1, 0, 0, 0.171),  # The library smooths errors with zeros outside the image.
    (1.0, False, 1, 0, 0, 0),
    (1.0, True, 0, 1, 1, 1),
  ],
)
def test_constant_pictures(predicted, target, mae, s_measure, e_measure, weighted_f):
  scores = saliency.saliency_scores(np.full((30, 40), predicted), np.full((30, 40), target))
  # At threshold 0, an empty prediction is full: 1 of 256. N / (N - 1) is the library's factor.
  assert list(scores.values()) == pytest.approx(
    [mae, s_measure, e_measure, weighted_f], abs=1 / 256 + 1e-3
  )


@settings(max_examples=60, deadline=None)
@given(
  height=st.integers(1, 6),
  width=st.integers(2, 6),
  seed=st.integers(0, 2**32 - 1),
  density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
  levels=st.sampled_from([1, 2, 256]),
)
def test_scores_are_finite_on_any_picture(height, width, seed, density, levels):
  """Includes targets in one corner, in the last row and in the last column."""
  rng = np.random.default_rng(seed)
  target = rng.random((height, width)) < density
  probability = rng.integers(0, levels, (height, width)) / 255 * (255 // max(levels - 1, 1))
  scores = saliency.saliency_scores(probability, target)
  values = np.array(list(scores.values()))
  largest = np.array([1, 1, target.size / (target.size - 1), 1])
  assert np.all(values >= 0), scores
  assert np.all(values <= largest + 1e-9), scores


def test_a_target_in_the_last_column_has_a_structure_measure():
  target = np.zeros((8, 9), bool)
  target[:, -1] = True
  assert saliency.saliency_scores(target * 1.0, target)["s_measure"] == pytest.approx(1)


def test_the_order_of_images_does_not_matter():
  rng = np.random.default_rng(0)
  scores = [dict(zip(NAMES, rng.random(4).tolist(), strict=True)) for _ in range(100)]
  assert saliency.aggregate(scores) == saliency.aggregate(scores[::-1])


def test_nothing_to_aggregate_is_refused():
  with pytest.raises(ValueError, match="at least one image, got none"):
    saliency.aggregate([])


@pytest.mark.parametrize(
  ("probability", "target", "message"),
  [
    (np.zeros((2, 3)), np.zeros((3, 2), bool), r"probability has shape \(2, 3\) and target \(3, 2"),
    (np.zeros((2, 3)), np.full((2, 3), 255), r"target must be bool, got int64"),
    (np.full((2, 3), np.nan), np.zeros((2, 3), bool), r"lie in \[0, 1\], got values from nan"),
    (np.zeros((1, 1)), np.zeros((1, 1), bool), r"shape \(1, 1\), .* at least two pixels"),
  ],
)
def test_bad_input_is_refused_by_value(probability, target, message):
  with pytest.raises(ValueError, match=message):
    saliency.saliency_scores(probability, target)


def test_without_the_library_the_error_names_the_command(monkeypatch):
  saliency._library.cache_clear()
  monkeypatch.setitem(sys.modules, "py_sod_metrics", None)
  with pytest.raises(ImportError, match=r"pysodmetrics.*pip install \"unseg-jax\[benchmarks\]\""):
    saliency.saliency_scores(np.zeros((2, 2)), np.zeros((2, 2), bool))
