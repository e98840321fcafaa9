"""The direction search: step by step the original's, and safe to interrupt."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unseg_jax import default_config, directions, generators, parallel, search

ROOT = pathlib.Path(__file__).resolve().parent.parent


def paper_config(**changes):
  """`config.search` with the paper's settings, but for the changes."""
  config = default_config.get_config().search
  config.update(changes)
  return config


def tiny_generator(gain=1.0):
  """Images of 8 x 8 pixels that are a smooth function of 6 numbers."""
  shape = (6, 8, 8, 3)
  return generators.Generator(
    variables={"kernel": gain * np.random.default_rng(0).normal(size=shape).astype(np.float32)},
    image_size=8,
    latent_shape=(6,),
    num_classes=None,
    sample_latents=generators.normal_latents((6,)),
    generate=lambda variables, latents, labels: jnp.tanh(
      jnp.tensordot(latents, variables["kernel"], 1)
    ),
    identity="tiny",
  )


def test_twenty_steps_on_the_face_generator_equal_the_originals():
  golden = np.load(ROOT / "tests" / "golden" / "search_dcgan_faces.npz")
  generator, config = generators.load("pretrained:dcgan_faces"), paper_config()
  state = parallel.replicate(search.initial_state(config, jnp.asarray(golden["d0"])[None]))
  variables = parallel.replicate(generator.variables)
  labels = np.zeros(golden["z"].shape[1], np.int32)
  with jax.default_matmul_precision("highest"):
    step = parallel.pmap(search.make_step(generator, config), donate_argnums=(0,))
    for i, (latents, radii) in enumerate(zip(golden["z"], golden["r"], strict=True)):
      state, parts = step(state, variables, *parallel.shard((latents, labels, radii)))
      parts = parallel.unreplicate(parts)
      found = np.asarray(parallel.unreplicate(state).direction)
      assert found.shape == (1, 100)
      np.testing.assert_allclose(found[0], golden["d"][i], atol=1e-4, rtol=0, err_msg=f"step {i}")
      found_losses = [parts["outside_circle"], parts["sobel_shift"]]
      np.testing.assert_allclose(
        found_losses, golden["losses"][i], atol=1e-4, rtol=1e-4, err_msg=f"step {i}"
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
  np.testing.assert_array_equal(cut, whole)
  histories = [
    json.loads((tmp_path / name / "history.json").read_text()) for name in ("whole", "cut")
  ]
  assert histories[0] == histories[1]
  assert histories[0]["step"] == list(range(6))


def test_the_search_saves_a_direction_of_unit_length_that_lights_the_middle(tmp_path):
  generator = tiny_generator()
  config = paper_config(steps=40, batch_size=16, learning_rate=0.05)
  direction = search.search(generator, config, jax.random.key(0), tmp_path)
  assert direction.shape == (1, 6) and direction.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(direction), 1, rtol=1e-5)
  np.testing.assert_array_equal(np.load(tmp_path / "direction.npy"), direction)
  opposite = paper_config(steps=40, batch_size=16, learning_rate=0.05, circle_weight=-2.0)
  (tmp_path / "dark").mkdir()
  dark = search.search(generator, opposite, jax.random.key(0), tmp_path / "dark")
  assert circle(generator, direction) < circle(generator, dark)


def circle(generator, direction):
  """The loss that is low for a light middle, at latents that no search has seen."""
  latents = np.random.default_rng(9).normal(size=(64, 6)).astype(np.float32) + 2 * direction
  images = generator.generate(generator.variables, latents, None)
  return float(search.losses.outside_circle(images))


def test_a_loss_that_is_not_finite_stops_the_search(tmp_path):
  with pytest.raises(FloatingPointError, match=r"step 0.*learning_rate \(0\.005\)"):
    search.search(tiny_generator(gain=np.nan), paper_config(steps=3), jax.random.key(0), tmp_path)
  assert not (tmp_path / "direction.npy").exists()


def test_microbatches_change_nothing_but_memory(tmp_path):
  found = []
  for microbatch in (0, 2):
    (tmp_path / str(microbatch)).mkdir()
    config = paper_config(steps=5, batch_size=16, microbatch=microbatch)
    found.append(
      search.search(tiny_generator(), config, jax.random.key(0), tmp_path / str(microbatch))
    )
  np.testing.assert_allclose(found[0], found[1], atol=1e-5)


def test_a_microbatch_that_does_not_divide_the_batch_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r"microbatch=3 does not divide.*batch_size, \d+ images"):
    search.search(
      tiny_generator(), paper_config(batch_size=16, microbatch=3), jax.random.key(0), tmp_path
    )


def test_directions_have_unit_length_along_the_first_axis_of_the_latent():
  direction = directions.initial(jax.random.key(0), (5, 7))
  assert direction.shape == (1, 5, 7)
  norms = jnp.linalg.norm(directions.normalise(direction), axis=1)
  np.testing.assert_allclose(norms, np.ones((1, 7)), rtol=1e-5)


def test_radii_are_normal_around_two_and_never_below_a_tenth():
  radii = np.asarray(directions.sample_radii(jax.random.key(0), (200_000,)))
  assert abs(radii.mean() - 2) < 0.01 and abs(radii.std() - 0.5) < 0.01
  assert radii.min() == np.float32(0.1)
