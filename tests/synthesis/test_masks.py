"""Mask rules and filters match the reference implementation."""

from pathlib import Path

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import measure

from unseg_jax.synthesis import filters
from unseg_jax.synthesis import masks as masks_lib

GOLDEN = Path(__file__).parents[1] / "golden" / "masks.npz"
SHAPE = (4, 24, 31)


@pytest.fixture(scope="module")
def golden():
  with np.load(GOLDEN) as file:
    return dict(file)


random_masks = st.builds(
  lambda seed, density: np.random.default_rng(seed).random(SHAPE) < density,
  st.integers(0, 2**32 - 1),
  st.sampled_from([0.01, 0.1, 0.3, 0.5, 0.7, 0.95, 0.99]),
)


def smooth_masks(seed, size=31):
  """Five masks with round outlines, from almost nothing to almost everything."""
  rng = np.random.default_rng(seed)
  rows, columns = np.indices((size, size))
  waves = rng.uniform(0, 0.4, (4, 2, 1, 1))
  phases = rng.uniform(0, 2 * np.pi, (4, 1, 1))
  height = np.cos(waves[:, 0] * rows + waves[:, 1] * columns + phases).sum(axis=0)
  return np.stack([height > level for level in np.quantile(height, [0.02, 0.3, 0.5, 0.8, 0.97])])


def test_mask_rules_equal_the_reference(golden):
  image, shifted, darker = golden["image"], golden["shifted"], golden["darker"]
  difference_mask = jax.jit(masks_lib.difference_mask, static_argnames=("rule", "invert"))
  for rule, invert, other, key in [
    ("lighting", False, shifted, "mask"),
    ("std", False, shifted, "mask_std"),
    ("lighting", True, darker, "mask_inverted"),
  ]:
    np.testing.assert_array_equal(difference_mask(image, other, rule, invert), golden[key])
  np.testing.assert_array_equal(jax.jit(masks_lib.dual_mask)(shifted, darker), golden["mask_dual"])


def test_large_components_equal_the_reference(golden):
  kept = jax.jit(masks_lib.keep_large_components)(golden["mask"])
  np.testing.assert_array_equal(kept, golden["mask_largest_components"])


@pytest.mark.parametrize(
  ("key", "decide"),
  [
    ("keep_area_0_05", lambda g: filters.area_accepted(g["mask_largest_components"], 0.0, 0.5)),
    (
      "keep_area_005_03",
      lambda g: filters.area_accepted(g["mask_largest_components"], 0.05, 0.3),
    ),
    ("keep_histogram_12", lambda g: filters.histogram_accepted(g["shifted"])),
    (
      "keep_roundness_0015",
      lambda g: filters.roundness_accepted(g["mask_largest_components"], 0.015),
    ),
    ("keep_overlap_06", lambda g: filters.agreement(g["mask"], g["mask_inverted"]) >= 0.6),
  ],
)
def test_decisions_equal_the_reference(golden, key, decide):
  arrays = {k: jnp.asarray(v) for k, v in golden.items()}
  np.testing.assert_array_equal(jax.jit(decide)(arrays), golden[key])


def test_inverting_swaps_the_images(golden):
  image, shifted = golden["image"], golden["shifted"]
  for rule in ("lighting", "std"):
    np.testing.assert_array_equal(
      masks_lib.difference_mask(image, shifted, rule, invert=True),
      masks_lib.difference_mask(shifted, image, rule, invert=False),
    )


def test_pixels_that_do_not_change_are_background():
  image = jnp.full((1, 2, 2, 3), 0.25)
  assert not masks_lib.lighting_mask(image, image).any()
  assert not masks_lib.dual_mask(image, image).any()


def test_std_rule_uses_the_unbiased_deviation_of_the_whole_batch():
  """Changes of -0.18 and 0.82 have a deviation of 0.71 unbiased, 0.5 biased, 0 per image."""
  change = jnp.broadcast_to(jnp.array([-0.18, 0.82])[:, None, None, None], (2, 1, 1, 3))
  assert masks_lib.std_mask(jnp.zeros_like(change), change).ravel().tolist() == [True, True]
  larger = change - jnp.array([0.05, 0.0])[:, None, None, None]  # -0.23 is below -0.3 * 0.74
  assert masks_lib.std_mask(jnp.zeros_like(change), larger).ravel().tolist() == [False, True]


def test_large_components_at_the_edges():
  mask = np.zeros((9, 20), bool)
  mask[0, :15] = True
  mask[4, :4] = True
  with_small = mask.copy()
  with_small[2, :3] = True  # 3 is exactly 0.2 * 15, so it does not exceed the threshold
  empty, full = np.zeros_like(mask), np.ones_like(mask)
  kept = jax.jit(masks_lib.keep_large_components)(np.stack([with_small, empty, full]))
  np.testing.assert_array_equal(kept, [mask, empty, full])


@pytest.mark.parametrize("pixels", [5, 7, 14, 29, 55, 57])
def test_area_includes_both_ends(pixels):
  """Limits that float32 arithmetic gets wrong."""
  mask = np.arange(100).reshape(1, 10, 10) < pixels
  end = pixels / 100
  assert jax.jit(lambda m: filters.area_accepted(m, end, end))(mask).tolist() == [True]
  assert filters.area_accepted(mask, 0.0, end - 1e-9).tolist() == [False]
  assert filters.area_accepted(mask, end + 1e-9, 1.0).tolist() == [False]


def reference_histogram_maxima(image, bins):
  counts, _ = np.histogram(image, bins=bins, range=(-1, 1))
  smooth = np.convolve(counts, [1, 1, 1], mode="same")
  higher_than_left = np.r_[True, smooth[1:] >= smooth[:-1]]
  higher_than_right = np.r_[smooth[:-1] >= smooth[1:], True]
  return (higher_than_left & higher_than_right).sum()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.05, 0.2, 0.6]))
def test_histogram_equals_numpy(seed, spread):
  rng = np.random.default_rng(seed)
  centres = rng.uniform(-1, 1, (8, 1, 1, 3))
  images = (centres + spread * rng.standard_normal((8, 9, 9, 3))).astype(np.float32)
  for bins, minimum_maxima in ((12, 2), (7, 3)):
    accepted = histogram_accepted(images, bins, minimum_maxima)
    expected = [reference_histogram_maxima(i, bins) >= minimum_maxima for i in images]
    np.testing.assert_array_equal(accepted, expected)


def test_values_are_counted_the_same_on_every_kind_of_device():
  values = np.random.default_rng(0).integers(0, 13, (5, 300)).astype(np.int32)
  expected = [np.bincount(row, minlength=13)[:12] for row in values]
  np.testing.assert_array_equal(filters.count_by_scatter(values, 12), expected)
  np.testing.assert_array_equal(filters.count_by_comparison(values, 12), expected)


histogram_accepted = jax.jit(filters.histogram_accepted, static_argnums=(1, 2))


def test_histogram_tells_one_peak_from_two():
  """1 belongs to the last bin; values outside [-1, 1] belong to no bin."""
  one_peak = np.linspace(-1, 1, 300) ** 3  # highest at 0, in the middle of the 6th of 11 bins
  light = np.concatenate([one_peak, np.full(150, 1.0)])
  outside = np.concatenate([one_peak, np.full(75, 1.5), np.full(75, -7.0)])
  images = np.stack([np.concatenate([one_peak, one_peak[::2]]), light, outside])
  accepted = histogram_accepted(images.reshape(3, 15, 10, 3), 11, 2)
  assert accepted.tolist() == [False, True, False]


perimeter = jax.jit(filters.perimeter)


def assert_perimeters_match(masks):
  expected = [measure.perimeter(mask, neighborhood=4) for mask in masks]
  np.testing.assert_allclose(perimeter(masks), expected, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(masks=random_masks)
def test_perimeter_equals_scikit_image_on_noise(masks):
  assert_perimeters_match(masks)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_perimeter_equals_scikit_image_on_shapes(seed):
  assert_perimeters_match(smooth_masks(seed))


def test_perimeter_of_empty_full_and_single_pixel_masks():
  masks = np.zeros((3, 8, 9), bool)
  masks[1] = True
  masks[2, 3, 4] = True
  assert_perimeters_match(masks)
  assert perimeter(masks)[0] == 0


def reference_roundness_accepted(mask, threshold, low, high):
  regions = measure.regionprops(measure.label(mask, connectivity=2))
  if not regions:
    return False
  largest = max(regions, key=lambda region: region.area)
  fraction = largest.area / mask.size
  outline = measure.perimeter(np.pad(largest.image, 1), neighborhood=4)
  return low < fraction < high and largest.area > threshold * outline**2


roundness_accepted = jax.jit(filters.roundness_accepted, static_argnums=(1, 2, 3))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), threshold=st.sampled_from([0.015, 0.05]))
def test_roundness_equals_scikit_image(seed, threshold):
  masks = smooth_masks(seed)
  expected = [reference_roundness_accepted(mask, threshold, 0.05, 0.9) for mask in masks]
  np.testing.assert_array_equal(roundness_accepted(masks, threshold, 0.05, 0.9), expected)


def test_roundness_of_plain_shapes():
  rows, columns = np.indices((40, 40))
  disc = (rows - 20) ** 2 + (columns - 20) ** 2 < 15**2
  bar = (np.abs(rows - 20) < 2) & (columns > 1) & (columns < 38)
  dust = disc | ((rows == 0) & (columns % 3 == 0))  # only the largest component counts
  masks = np.stack([disc, bar, dust, np.zeros_like(disc), np.ones_like(disc), rows + columns == 0])
  accepted = [True, False, True, False, False, False]
  assert roundness_accepted(masks, 0.05, 0.05, 0.9).tolist() == accepted
  # Without limits, a single pixel passes. An empty mask and a fraction of 1 are still rejected,
  # because both ends are excluded.
  accepted = [True, True, True, False, False, True]
  assert roundness_accepted(masks, 0.0, 0.0, 1.0).tolist() == accepted


def test_the_numbers_behind_the_verdicts():
  rows, columns = np.indices((40, 40))
  disc, empty = (rows - 20) ** 2 + (columns - 20) ** 2 < 15**2, np.zeros((40, 40), bool)
  masks = np.stack([disc, empty, rows + columns == 0])
  np.testing.assert_allclose(filters.area_fraction(masks), masks.mean(axis=(1, 2)))
  outline = measure.perimeter(disc, neighborhood=4)
  expected = [disc.sum() / outline**2, 0, np.inf]
  np.testing.assert_allclose(filters.roundness(masks), expected, rtol=1e-6)
  two_peaks = np.linspace(-1, 1, 40 * 40 * 3).round().reshape(1, 40, 40, 3)
  assert filters.histogram_maxima(jnp.asarray(two_peaks), 11).tolist() == [
    reference_histogram_maxima(two_peaks[0], 11)
  ]


def test_an_empty_batch_stays_empty():
  images, masks = jnp.zeros((0, 8, 8, 3)), jnp.zeros((0, 8, 8), bool)
  assert masks_lib.keep_large_components(masks).shape == masks.shape
  assert filters.area_accepted(masks, 0.0, 1.0).shape == (0,)
  assert filters.histogram_accepted(images).shape == (0,)
  assert filters.roundness_accepted(masks, 0.0).shape == (0,)
  assert filters.roundness(masks).shape == filters.area_fraction(masks).shape == (0,)


def test_agreement_is_the_fraction_of_equal_pixels():
  masks_a = np.array([[[1, 1], [0, 0]], [[1, 0], [1, 0]], [[1, 1], [1, 1]]], bool)
  masks_b = np.array([[[1, 1], [0, 0]], [[1, 1], [1, 0]], [[0, 0], [0, 0]]], bool)
  assert filters.agreement(masks_a, masks_b).tolist() == [1.0, 0.75, 0.0]


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda i, m: masks_lib.difference_mask(i, i, "otsu"), r"\['lighting', 'std'\], got 'otsu'"),
    (lambda i, m: masks_lib.keep_large_components(m, 1.0), r"fraction must be in \[0, 1\)"),
    (lambda i, m: filters.area_accepted(m, 0.5, 0.2), r"low <= high <= 1, got 0\.5, 0\.2"),
    (lambda i, m: filters.area_accepted(m, 0, 50), r"low <= high <= 1, got 0, 50"),
    (lambda i, m: filters.roundness_accepted(m, -0.1), r"at least 0 .* got -0\.1"),
    (lambda i, m: filters.roundness_accepted(m, 0.1, -1, 1), r"low <= high <= 1, got -1, 1"),
    (lambda i, m: filters.histogram_accepted(i, bins=1), r"bins must be at least 2"),
  ],
)
def test_bad_settings_are_refused_by_value(call, message):
  with pytest.raises(ValueError, match=message):
    call(jnp.zeros((1, 4, 4, 3)), jnp.zeros((1, 4, 4), bool))


def test_agreement_refuses_masks_of_different_shapes(monkeypatch):
  # Without run-time signature checks, as users call it.
  monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
  masks = jnp.zeros((1, 4, 4), bool)
  with pytest.raises(ValueError, match=r"\(1, 4, 4\) and \(1, 2, 4\)"):
    filters.agreement(masks, masks[:, :2])
