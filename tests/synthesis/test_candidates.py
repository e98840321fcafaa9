"""Candidates from two directions, from a file of latents, and on the fly."""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_generator import tiny_generator
from whole_runs import ROOT

from unseg_jax import default_config, generators
from unseg_jax.artifacts import checkpoints
from unseg_jax.direction import restarts, search
from unseg_jax.runtime import parallel
from unseg_jax.segmentation import curves
from unseg_jax.synthesis import candidates, filters, generate, latents, masks, on_the_fly, shards

pytestmark = pytest.mark.usefixtures("compile_quickly")


def make_config(**changes):
  """An experiment on 8 x 8 images, some of which pass the filters."""
  config = default_config.get_config()
  config.generate.update(
    {"area": (0.45, 0.52), "histogram_maxima": 0, "chunk": 8, "shard_candidates": 16, **changes}
  )
  config.generate.num_images.update({"train": 24, "validation": 4, "test": 4})
  config.train.update({"image_size": 8, "batch_size": 6})
  return config


def unit_directions(count):
  directions = np.random.default_rng(1).normal(size=(count, 6)).astype(np.float32)
  return directions / np.linalg.norm(directions, axis=1, keepdims=True)


class TestTwoDirections:
  @pytest.fixture(scope="class")
  @classmethod
  def golden(cls):
    return np.load(ROOT / "tests" / "golden" / "masks.npz")

  def decide(self, golden, **changes):
    config = make_config(**{"components": 0.0, "area": (0.0, 1.0), **changes}).generate
    shifted = jnp.stack([golden["shifted"], golden["darker"]])
    decide = jax.jit(lambda *images: candidates.mask_and_filters(*images, config))
    return decide(jnp.asarray(golden["image"]), shifted)

  def test_the_mask_is_where_light_exceeds_dark(self, golden):
    made, _ = self.decide(golden)
    expected = masks.dual_mask(golden["shifted"], golden["darker"])
    np.testing.assert_array_equal(made, expected)
    inverted, _ = self.decide(golden, invert=True)
    assert not (np.asarray(made) & np.asarray(inverted)).any()

  def test_agreement_is_decided_as_by_the_reference(self, golden):
    _, verdicts = self.decide(golden, agreement=0.6)
    np.testing.assert_array_equal(verdicts["agreement"], golden["keep_overlap_06"])

  def test_the_verdicts_follow_from_the_numbers(self, golden):
    settings = {"area": (0.3, 0.5), "histogram_maxima": 2, "agreement": 0.6}
    config = make_config(components=0.0, **settings).generate
    images, shifted = golden["image"], jnp.stack([golden["shifted"], golden["darker"]])
    made, verdicts = self.decide(golden, **settings)
    numbers = candidates.filter_numbers(made, images, shifted, config)
    assert numbers.keys() == {*verdicts, "roundness"}
    within = (numbers["area"] >= 0.3) & (numbers["area"] <= 0.5)
    np.testing.assert_array_equal(verdicts["area"], within)
    np.testing.assert_array_equal(verdicts["histogram"], numbers["histogram"] >= 2)
    np.testing.assert_array_equal(verdicts["agreement"], numbers["agreement"] >= 0.6)

  def test_every_other_filter_applies_to_their_mask(self, golden):
    made, verdicts = self.decide(
      golden, components=0.2, area=(0.1, 0.5), histogram_maxima=2, roundness=0.015
    )
    expected = masks.keep_large_components(masks.dual_mask(golden["shifted"], golden["darker"]))
    np.testing.assert_array_equal(made, expected)
    np.testing.assert_array_equal(verdicts["area"], filters.area_accepted(expected, 0.1, 0.5))
    np.testing.assert_array_equal(
      verdicts["roundness"], filters.roundness_accepted(expected, 0.015)
    )
    assert set(verdicts) == {"area", "histogram", "roundness"}

  @pytest.mark.parametrize(
    ("agreement", "directions", "message"),
    [(0.5, 1, "config.search.directions=2"), (1.5, 2, "agreement=1.5: expected a fraction")],
  )
  def test_an_agreement_that_cannot_be_is_refused(self, agreement, directions, message):
    with pytest.raises(ValueError, match=message):
      candidates.check_config(make_config(agreement=agreement).generate, directions)


class TestRestarts:
  def scores(self, config, *kinds):
    """A search result with these directions as restarts, whose losses rank them in reverse."""
    losses = np.linspace(0, 1, len(kinds), dtype=np.float32)
    losses = np.broadcast_to(losses[:, None], (10, len(kinds), 1))
    result = search.SearchResult(np.stack(kinds)[:, None], {"outside_circle": losses}, {})
    key = jax.random.key(0)
    make_masks = candidates.first_masks(tiny_generator(), config.generate, key, restarts.CANDIDATES)
    return restarts.scores(result, make_masks)

  def test_the_odd_one_out_agrees_least(self):
    odd, one = unit_directions(2)
    near = one + 0.05 * odd
    scores = self.scores(make_config(), odd, one, near)
    assert [score.loss for score in scores] == pytest.approx([0, 0.5, 1])
    assert scores[0].agreement < min(scores[1].agreement, scores[2].agreement)

  def test_the_lowest_loss_is_chosen(self):
    scores = [restarts.Scores(loss, 0.5, 0.5) for loss in (-0.1, -0.3, -0.2)]
    assert restarts.best(scores) == 1

  def test_acceptance_is_the_share_that_the_filters_keep(self):
    (direction,) = unit_directions(1)
    scores = self.scores(make_config(area=(0.0, 1.0)), direction, direction)
    assert [score.acceptance for score in scores] == [1.0, 1.0]
    assert [score.agreement for score in scores] == [1.0, 1.0]


class TestLatentsFromAFile:
  @pytest.fixture
  def array(self, tmp_path):
    array = np.random.default_rng(2).normal(size=(400, 6)).astype(np.float32)
    np.save(tmp_path / "latents.npy", array)
    return array

  def generate(self, folder, **changes):
    config = make_config(latents=str(folder / "latents.npy"), area=(0.0, 1.0), **changes)
    config.generate.num_images.update({"train": 24, "validation": 2, "test": 2})
    key = jax.random.key(0)
    generate.generate(tiny_generator(), config.generate, unit_directions(1), key, folder / "set")
    return {split: list(shards.read(folder / "set", split)) for split in generate.SPLITS}

  def expected(self, array, rows):
    generator = tiny_generator()
    images = generator.generate(generator.variables, array[rows], None)
    return np.asarray(np.clip(np.round((images + 1) * 127.5), 0, 255), int)

  def test_become_the_images_in_order_and_no_row_serves_two_splits(self, array, tmp_path):
    splits = self.generate(tmp_path, chunk=4)
    starts = {"test": 0, "validation": 20, "train": 40}
    for split, pairs in splits.items():
      images = np.stack([pair["image"] for pair in pairs]).astype(int)
      rows = [starts[split] + pair["candidate"] for pair in pairs]
      # JPEG changes pixels of such small and detailed images.
      assert np.abs(images - self.expected(array, rows)).mean() < 8

  def test_noise_is_added_where_asked(self, array, tmp_path):
    (direction,) = unit_directions(1)
    config = make_config(latent_noise=0.5).generate
    indices = jnp.arange(200)
    compute = jax.jit(candidates.make_candidates(tiny_generator(), config))
    inputs = (tiny_generator().variables, direction[None], jax.random.key(0), indices)
    noisy = compute(*inputs, array[:200])["image"].astype(int)
    again = compute(*inputs, array[:200])["image"].astype(int)
    np.testing.assert_array_equal(noisy, again)
    assert np.abs(noisy - self.expected(array, np.arange(200))).mean() > 8

  def test_that_run_out_are_named_with_the_way_out(self, array, tmp_path):
    with pytest.raises(generate.TooFewAccepted, match=r"rows 40 to 400.*latent_noise") as error:
      config = make_config(latents=str(tmp_path / "latents.npy"), area=(0.0, 0.2), chunk=4)
      config.generate.minimum_acceptance = 1e-9
      config.generate.num_images.train = 400
      key = jax.random.key(0)
      generate.generate(tiny_generator(), config.generate, unit_directions(1), key, tmp_path)
    assert "num_images.train=400" in str(error.value)

  def test_with_noise_are_used_again(self, array):
    rows = latents.Rows(array, "test", noise=0.1)
    np.testing.assert_array_equal(rows.at(np.array([0, 20, 41])), array[[0, 0, 1]])
    assert latents.Rows(array, "test", noise=0.0).limit(chunk=8) == 16

  def test_are_read_from_disk_as_needed(self, array, tmp_path):
    opened = latents.read(str(tmp_path / "latents.npy"), (6,))
    assert isinstance(opened, np.memmap)

  @pytest.mark.parametrize(
    ("content", "message"),
    [
      (np.zeros((10, 5), np.float32), r"holds float32 \[10, 5\]; expected .* \[n, 6\]"),
      (np.zeros((10, 6), np.int32), "holds int32"),
      (np.array([{"a": 1}]), "not an array"),
    ],
  )
  def test_that_do_not_fit_are_refused(self, tmp_path, content, message):
    np.save(tmp_path / "wrong.npy", content)
    with pytest.raises(ValueError, match=message):
      latents.read(str(tmp_path / "wrong.npy"), (6,))

  def test_that_are_missing_are_named(self, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.generate\.latents=.*absent"):
      latents.read(str(tmp_path / "absent.npy"), (6,))

  def test_that_are_not_finite_are_named(self, array):
    array[45, 2] = np.nan
    with pytest.raises(ValueError, match="latent 45"):
      latents.Rows(array, "train", 0.0).at(np.arange(10))

  def test_need_a_data_set_on_disk(self):
    config = make_config(latents="x.npy").generate
    config.num_images.train = 0
    with pytest.raises(ValueError, match=r"num_images\.train"):
      generate.check_config(config, 1)


class TestOnTheFly:
  @pytest.fixture(scope="class")
  @classmethod
  def batches(cls):
    """Yields the batches from candidate `first` on: (batch, next candidate, number of pairs)."""

    def make(first=0, **changes):
      config, key = make_config(**changes), jax.random.key(5)
      state = types.SimpleNamespace(candidates=np.int32(first))
      made = on_the_fly.batches(tiny_generator(), unit_directions(1), config, key, state)
      for batch in made:
        pairs = {name: batch[name] for name in ("image", "mask", "position")}
        yield parallel.unshard(pairs), int(batch["candidates"][0]), int(batch["pairs"][0])

    return make

  @pytest.fixture(scope="class")
  @classmethod
  def expected(cls):
    """The accepted candidates of the same stream, computed at once."""
    config, generator = make_config().generate, tiny_generator()
    made = jax.jit(candidates.make_candidates(generator, config))(
      generator.variables, unit_directions(1), jax.random.key(5), jnp.arange(400)
    )
    accepted = np.flatnonzero(made["verdicts"]["all"])
    assert 0.1 < len(accepted) / 400 < 0.9
    return accepted, np.asarray(made["image"]), np.asarray(made["mask"])

  def test_batches_are_the_accepted_candidates_in_order(self, batches, expected):
    accepted, images, accepted_masks = expected
    for t, (batch, following, num_pairs) in enumerate(itertools.islice(batches(), 8)):
      numbers = accepted[6 * t : 6 * t + 6]
      assert num_pairs == 6 and following == numbers[-1] + 1
      assert np.abs(batch["image"].astype(int) - images[numbers]).max() <= 1
      np.testing.assert_array_equal(batch["mask"][..., 0] > 127, accepted_masks[numbers])
      np.testing.assert_array_equal(batch["position"], np.arange(6))

  def test_a_resumed_stream_continues_with_the_next_pair(self, batches, expected):
    accepted, images, _ = expected
    first = int(accepted[11]) + 1
    batch, _, _ = next(batches(first))
    assert np.abs(batch["image"].astype(int) - images[accepted[12:18]]).max() <= 1

  def test_a_stream_that_dries_up_ends(self, batches):
    _, _, num_pairs = next(batches(area=(0.0, 0.0), minimum_acceptance=0.1))
    assert num_pairs == 0

  def test_a_training_that_dries_up_stops_with_the_reason(self, tmp_path):
    loss = norm = jnp.zeros(1, jnp.float32)
    history = curves.Curves(on_devices=[(loss, norm, jnp.full(1, 3, jnp.int32))])
    with checkpoints.training_manager(tmp_path / "checkpoints") as manager:
      with pytest.raises(curves.TooFewPairs, match=r"step 7 made 3 of the 6 pairs.*no checkpoi"):
        history.fetch(8, make_config().train, manager)

  def test_pairs_are_resized_to_the_trainings_size(self):
    images = jnp.arange(2 * 8 * 8 * 3, dtype=jnp.uint8).reshape(2, 8, 8, 3)
    right_half = jnp.arange(64).reshape(1, 8, 8) % 8 > 3
    fitted, mask = on_the_fly._fit(images, jnp.broadcast_to(right_half, (2, 8, 8)), 4)
    assert fitted.shape == (2, 4, 4, 3) and fitted.dtype == jnp.uint8
    np.testing.assert_array_equal(mask[0, 0, :, 0], [0, 0, 255, 255])


def test_bfloat16_changes_few_pixels_of_the_masks():
  """At least 99.5 % of pixels agree on the face generator with its own direction."""
  config = default_config.get_config().generate
  direction = np.load(ROOT / "tests" / "golden" / "search_dcgan_faces.npz")["d"][-1:]
  chunks = []
  for dtype in generators.DTYPES:
    generator = generators.with_dtype(generators.load("pretrained:dcgan_faces"), dtype)
    compute = parallel.jit(candidates.make_candidates(generator, config))
    chunks.append(compute(generator.variables, direction, jax.random.key(0), jnp.arange(64)))
  agreement = filters.agreement(chunks[0]["mask"], chunks[1]["mask"]).mean()
  print("bfloat16 and float32 agree on", agreement)
  assert agreement >= 0.995


def test_an_unknown_type_is_refused():
  with pytest.raises(ValueError, match="dtype 'float16': expected one of float32, bfloat16"):
    generators.with_dtype(tiny_generator(), "float16")
