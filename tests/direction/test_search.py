"""The direction search matches the original step by step and can be interrupted safely."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_generator import tiny_generator

from unseg_jax import default_config, generators
from unseg_jax.direction import directions, losses, search
from unseg_jax.direction import step as search_step
from unseg_jax.runtime import parallel

ROOT = pathlib.Path(__file__).resolve().parents[2]


def paper_config(**changes):
  """`config.search` with the paper's settings and the given changes."""
  config = default_config.get_config().search
  config.update(changes)
  return config


def test_twenty_steps_on_the_face_generator_equal_the_originals():
  golden = np.load(ROOT / "tests" / "golden" / "search_dcgan_faces.npz")
  generator, config = generators.load("pretrained:dcgan_faces"), paper_config()
  start = jnp.asarray(golden["d0"])[None, None]
  state = parallel.replicate(search_step.initial_state(config, start))
  variables = parallel.replicate(generator.variables)
  labels = np.zeros(golden["z"].shape[1], np.int32)
  with jax.default_matmul_precision("highest"):
    step = parallel.pmap(search_step.make_step(generator, config), donate_argnums=(0,))
    for i, (latents, radii) in enumerate(zip(golden["z"], golden["r"], strict=True)):
      state, parts = step(state, variables, *parallel.shard((latents, labels, radii)))
      parts = parallel.unreplicate(parts)
      direction = np.asarray(parallel.unreplicate(state).directions)
      assert direction.shape == (1, 1, 100)
      step_name = f"step {i}"
      np.testing.assert_allclose(
        direction[0, 0], golden["d"][i], atol=1e-4, rtol=0, err_msg=step_name
      )
      step_losses = [parts[name][0, 0] for name in ("outside_circle", "sobel_shift")]
      np.testing.assert_allclose(
        step_losses, golden["losses"][i], atol=1e-4, rtol=1e-4, err_msg=step_name
      )


def test_an_interrupted_search_continues_to_the_same_direction(tmp_path):
  generator, key = tiny_generator(), jax.random.key(3)
  for name in ("whole", "cut"):
    (tmp_path / name).mkdir()
  whole = search.search(
    generator, paper_config(steps=6, batch_size=8, save_every=3), key, tmp_path / "whole"
  )
  # Step 5 is not saved, so that the second run takes steps 4 and 5 again.
  search.search(generator, paper_config(steps=4, batch_size=8, save_every=3), key, tmp_path / "cut")
  assert (tmp_path / "cut" / "state.msgpack").exists()
  cut = search.search(
    generator, paper_config(steps=6, batch_size=8, save_every=3), key, tmp_path / "cut"
  )
  np.testing.assert_array_equal(cut.directions, whole.directions)
  assert cut.history(0) == whole.history(0)
  assert cut.history(0)["step"] == list(range(6))


class Killed(Exception):
  pass


def test_snapshots_show_how_the_direction_moved_whatever_interrupted_it(tmp_path, monkeypatch):
  generator, key = tiny_generator(), jax.random.key(3)
  config = paper_config(steps=12, batch_size=8, save_every=5, directions=2)
  results = []
  for name, killed in (("whole", False), ("cut", True)):
    folder = tmp_path / name
    folder.mkdir()
    if killed:
      with monkeypatch.context() as patch:
        save = search._save

        def save_and_die(*arguments, save=save):
          save(*arguments)
          raise Killed

        patch.setattr(search, "_save", save_and_die)
        with pytest.raises(Killed):
          search.search(generator, config, key, folder)
    results.append(search.search(generator, config, key, folder))
  whole, cut = results
  assert list(whole.snapshots) == list(cut.snapshots) == search.snapshot_steps(12)
  for step, snapshot in whole.snapshots.items():
    np.testing.assert_array_equal(cut.snapshots[step], snapshot)
    np.testing.assert_allclose(np.linalg.norm(snapshot, axis=-1), np.ones((1, 2)), rtol=1e-5)
  np.testing.assert_array_equal(whole.snapshots[12], whole.directions)
  distances = [np.abs(whole.snapshots[step] - whole.directions).max() for step in (0, 3, 6, 12)]
  assert distances == sorted(distances, reverse=True) and distances[0] > 0.01


@pytest.mark.parametrize(
  ("steps", "expected"),
  [(300, [0, 4, 9, 18, 37, 75, 150, 300]), (6, [0, 1, 3, 6]), (1, [0, 1])],
)
def test_at_most_eight_snapshots_lie_closer_at_first(steps, expected):
  assert search.snapshot_steps(steps) == expected


def test_one_search_gives_light_and_dark_which_do_the_opposite(tmp_path):
  generator = tiny_generator()
  config = paper_config(steps=40, batch_size=16, learning_rate=0.05, directions=2)
  result = search.search(generator, config, jax.random.key(0), tmp_path)
  assert result.directions.shape == (1, 2, 6) and result.directions.dtype == np.float32
  light, dark = result.directions[0]
  np.testing.assert_allclose([np.linalg.norm(light), np.linalg.norm(dark)], 1, rtol=1e-5)
  assert circle(generator, light) < circle(generator, np.zeros(6)) < circle(generator, dark)
  curves = result.history(0)
  assert len(curves["light outside_circle"]) == len(curves["dark sobel_shift"]) == 40
  negative = paper_config(steps=40, batch_size=16, learning_rate=0.05, circle_weight=-2.0)
  (tmp_path / "negative").mkdir()
  negative = search.search(generator, negative, jax.random.key(0), tmp_path / "negative")
  assert circle(generator, negative.directions[0, 0]) > circle(generator, np.zeros(6))


def test_restarts_are_the_searches_that_they_would_be_alone(tmp_path):
  """Restart 0 of three equals a single restart; the others start and end elsewhere."""
  results = []
  for restarts in (1, 3):
    (tmp_path / str(restarts)).mkdir()
    config = paper_config(steps=8, batch_size=16, restarts=restarts)
    folder = tmp_path / str(restarts)
    results.append(search.search(tiny_generator(), config, jax.random.key(0), folder))
  assert results[1].directions.shape == (3, 1, 6)
  np.testing.assert_allclose(results[1].directions[0], results[0].directions[0], atol=1e-5)
  assert np.abs(np.diff(results[1].directions, axis=0)).max(axis=(1, 2)).min() > 0.1


@pytest.mark.parametrize(("name", "value"), [("directions", 3), ("restarts", 0)])
def test_impossible_settings_are_refused(tmp_path, name, value):
  with pytest.raises(ValueError, match=rf"config\.search\.{name}={value}"):
    search.search(tiny_generator(), paper_config(**{name: value}), jax.random.key(0), tmp_path)


def circle(generator, direction):
  """The `outside_circle` loss at latents that no search has used."""
  latents = np.random.default_rng(9).normal(size=(64, 6)).astype(np.float32) + 2 * direction
  images = generator.generate(generator.variables, latents, None)
  return float(losses.outside_circle(images))


def test_a_loss_that_is_not_finite_stops_the_search(tmp_path):
  with pytest.raises(FloatingPointError, match=r"(?s)step 0.*learning_rate \(0\.005\)"):
    search.search(tiny_generator(gain=np.nan), paper_config(steps=3), jax.random.key(0), tmp_path)
  assert not list(tmp_path.iterdir())


def test_microbatches_change_nothing_but_memory(tmp_path):
  results = []
  for microbatch in (0, 2):
    (tmp_path / str(microbatch)).mkdir()
    config = paper_config(steps=5, batch_size=16, microbatch=microbatch)
    results.append(
      search.search(tiny_generator(), config, jax.random.key(0), tmp_path / str(microbatch))
    )
  np.testing.assert_allclose(results[0].directions, results[1].directions, atol=1e-5)


def test_a_microbatch_that_does_not_divide_the_batch_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r"microbatch=3 does not divide.*batch_size, \d+ images"):
    search.search(
      tiny_generator(), paper_config(batch_size=16, microbatch=3), jax.random.key(0), tmp_path
    )


def test_directions_have_unit_length_along_the_first_axis_of_the_latent():
  start = directions.initial(jax.random.key(0), 2, (5, 7))
  assert start.shape == (2, 5, 7)
  norms = jnp.linalg.norm(directions.normalise(start), axis=1)
  np.testing.assert_allclose(norms, np.ones((2, 7)), rtol=1e-5)


def test_radii_are_normal_around_two_and_never_below_a_tenth():
  radii = np.asarray(directions.sample_radii(jax.random.key(0), (200_000,)))
  assert abs(radii.mean() - 2) < 0.01 and abs(radii.std() - 0.5) < 0.01
  assert radii.min() == np.float32(0.1)
