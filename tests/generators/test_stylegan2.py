"""The converted StyleGAN2 network generates the original's latents and images."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_stylegan2 import (
  converted,
  golden,
  make_generator,
  make_images,
  random_state,
  small_generator,
  small_latents,
)

from checkpoints_convert import stylegan2 as conversion
from unseg_jax import generators
from unseg_jax.generators import style_latents, stylegan2


def make_mapping(config, **options):
  names = ("num_classes", "class_features")
  return style_latents.Mapping(
    tuple(config["mapping_widths"]),
    2 * len(config["channels"]),
    **{name: config[name] for name in names},
    **options,
  )


def test_the_mapping_network_gives_the_original_latents():
  _, config, variables = converted()

  @jax.jit
  def map_noise(noise):
    mappings = [make_mapping(config, truncation_psi=psi) for psi in (1, 0.5)]
    return [m.apply({"params": variables["params"]["mapping"]}, noise, None) for m in mappings]

  with jax.default_matmul_precision("highest"):
    full, truncated = map_noise(golden()["z"])
  np.testing.assert_allclose(full, golden()["w"], atol=1e-5, rtol=0)
  np.testing.assert_allclose(truncated, golden()["w_truncated"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
  ("noise", "latents", "name"),
  [
    ("const", "w_truncated", "image"),
    ("none", "w_truncated", "image_no_noise"),
    ("const", "w", "image_untruncated"),
  ],
)
def test_the_synthesis_network_makes_the_original_images(noise, latents, name):
  generator = make_generator(noise=noise)
  images = make_images(generator, golden()[latents])
  assert images.dtype == jnp.float32
  assert images.shape[1:] == (generator.image_size, generator.image_size, 3) == (64, 64, 3)
  np.testing.assert_allclose(images, golden()[name], atol=5e-5, rtol=0)


def test_latents_come_mapped_and_truncated():
  options = ({}, {"truncation_psi": 1}, {"truncation_psi": 0, "truncation_cutoff": None})
  variants = [make_generator(**chosen) for chosen in options]

  @jax.pmap
  def draw(indices):
    return [generators.sample_at(variant, jax.random.key(0), indices) for variant in variants]

  drawn = draw(jnp.arange(50)[None])
  latents, labels = (np.concatenate(x) for x in zip(*drawn, strict=True))
  assert latents.shape == (3, 50, *variants[0].latent_shape) == (3, 50, 10, 32)
  assert variants[0].num_classes is None and not np.any(labels)
  truncated, full, all_average = latents
  average = converted()[2]["params"]["mapping"]["average"]
  np.testing.assert_array_equal(full, np.repeat(full[:, :1], 10, axis=1))
  np.testing.assert_allclose(truncated[:, 8:], full[:, 8:], atol=1e-6)
  np.testing.assert_allclose(truncated[:, :8], (average + full[:, :8]) / 2, atol=1e-5)
  np.testing.assert_allclose(all_average, np.broadcast_to(average, full.shape), atol=1e-6)


def test_a_conditional_network_draws_its_class_with_the_latent():
  state = random_state(num_classes=3)
  architecture, config, variables = conversion.convert(state, {})
  assert architecture == "stylegan2"
  assert (config["z_dim"], config["num_classes"], config["channels"]) == (6, 3, [4, 3])
  generator = stylegan2.build(config, variables, "small")

  @jax.jit
  def sample(key):
    latents, labels = generators.sample_at(generator, key, jnp.arange(5))
    return generator.generate(generator.variables, latents, labels), labels

  images, labels = sample(jax.random.key(0))
  assert not np.any(labels)
  assert images.shape == (5, 8, 8, 3) and np.isfinite(images).all()

  # Upstream's computation in its own order, without folding.
  def normalise(x):
    return x / np.sqrt(np.mean(x**2, axis=1, keepdims=True) + 1e-8)

  noise, labels = np.random.default_rng(1).normal(size=(4, 6)), np.array([0, 2, 1, 2])
  embedding = np.eye(3)[labels] @ (state["mapping.embed.weight"].T / np.sqrt(3))
  x = np.concatenate((normalise(noise), normalise(embedding + state["mapping.embed.bias"])), axis=1)
  for name in ("mapping.fc0", "mapping.fc1"):
    weight = state[f"{name}.weight"]
    x = x @ (weight.T * 0.01 / np.sqrt(weight.shape[1])) + 0.01 * state[f"{name}.bias"]
    x = np.sqrt(2) * np.where(x < 0, 0.2 * x, x)
  mapping = make_mapping(config, truncation_psi=1)
  latents = mapping.apply({"params": variables["params"]["mapping"]}, noise, labels)
  np.testing.assert_allclose(latents, np.repeat(x[:, None], 4, axis=1), rtol=1e-3, atol=1e-6)


@functools.cache
def conditional():
  return conversion.convert(random_state(num_classes=4), {})


@pytest.mark.parametrize(
  ("label", "classes"),
  [(2, {2}), ((0, 3), {0, 3}), ([1], {1}), ("all", {0, 1, 2, 3}), ((), {0, 1, 2, 3})],
)
def test_latents_are_of_the_classes_that_are_chosen(label, classes):
  _, config, variables = conditional()
  labels = (label, 0, 1, 2, 3)
  every = [
    stylegan2.build({**config, "label": each, "truncation_psi": 1}, variables, "small")
    for each in labels
  ]
  # The noise of a latent does not depend on the option, so it identifies the latent's class.
  chosen, *of_one = jax.jit(
    lambda key: [generators.sample_at(each, key, jnp.arange(30))[0] for each in every]
  )(jax.random.key(0))
  drawn = {
    each
    for each, latents in enumerate(of_one)
    if np.isclose(chosen, latents, atol=1e-6).all(axis=(1, 2)).any()
  }
  assert drawn == classes


@pytest.mark.parametrize(
  ("label", "message"),
  [
    (4, r"label=4: expected a class from 0 to 3, several such as \(0, 1\), or 'all'"),
    (-1, "label=-1: expected a class from 0 to 3"),
    ((0, 7), r"label=\(0, 7\): expected a class from 0 to 3"),
    ("cat", "label='cat': expected a class from 0 to 3"),
    (True, "label=True: expected a class from 0 to 3"),
  ],
)
def test_a_class_that_there_is_not_is_named(label, message):
  _, config, variables = conditional()
  with pytest.raises(ValueError, match=rf"config\.generator_options\.{message}"):
    stylegan2.build({**config, "label": label}, variables, "small")
  with pytest.raises(ValueError, match="label=0: this network has no classes; omit the option"):
    make_generator(label=0)


def test_the_largest_network_builds():
  channels = (512, 512, 512, 512, 512, 256, 128, 64, 32)
  config = {**converted()[1], "z_dim": 512, "mapping_widths": [512] * 8, "channels": channels}
  latents = jax.ShapeDtypeStruct((2, 18, 512), jnp.float32)
  synthesis = stylegan2.Synthesis(channels)
  variables = jax.eval_shape(synthesis.init, jax.random.key(0), latents)
  params = {"synthesis": variables["params"], "mapping": {}}
  generator = stylegan2.build(config, {"params": params}, "large")
  assert (generator.image_size, generator.latent_shape) == (1024, (18, 512))
  images = jax.eval_shape(generator.generate, generator.variables, latents, None)
  assert (images.shape, images.dtype) == ((2, 1024, 1024, 3), jnp.float32)


def test_an_image_changes_with_every_row_of_its_latent():
  generator = small_generator()

  def brightness(latents):
    return jnp.mean(generator.generate(generator.variables, latents, None) ** 2)

  gradient = jax.jit(jax.grad(brightness))(small_latents())
  assert np.isfinite(gradient).all()
  assert np.all(np.abs(gradient).max(axis=-1) > 0)


def test_bfloat16_makes_nearly_the_same_images():
  generator = small_generator()
  latents = small_latents()
  half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), (generator.variables, latents))
  images, expected = jax.jit(generator.generate)(*half, None), make_images(generator, latents)
  assert images.dtype == jnp.float32
  assert 0 < np.abs(images - expected).mean() < 0.02 * np.abs(expected).max()


def test_random_noise_is_as_strong_as_the_checkpoint_says():
  """The same image as with stored noise fields that are drawn for this latent."""
  state, latents = random_state(), small_latents()[:1]
  generator = small_generator("random")
  for name, field in zip(
    ("b4.conv1", "b8.conv0", "b8.conv1"), stylegan2.draw_noise(latents, (4, 8, 8)), strict=True
  ):
    state[f"synthesis.{name}.noise_const"] = np.asarray(field[0, ..., 0])
  _, config, variables = conversion.convert(state, {})
  images = make_images(generator, latents)
  expected = make_images(stylegan2.build(config, variables, ""), latents)
  np.testing.assert_allclose(images, expected, rtol=1e-4, atol=1e-4)
  assert np.abs(images - make_images(small_generator(), latents)).mean() > 1e-2


def test_random_noise_depends_on_the_latent_alone():
  generator = small_generator("random")
  latents, labels = generators.sample_at(generator, jax.random.key(0), jnp.arange(4))
  images = make_images(generator, latents)
  # Independent of the batch, the device and the rounding of another program.
  nudged = latents * (1 + np.finfo(np.float32).eps)
  for same in (make_images(generator, latents[2:3]), make_images(generator, nudged)[2:3]):
    np.testing.assert_allclose(same, images[2:3], atol=1e-4, rtol=1e-4)
  devices = jax.local_device_count()
  many = jax.pmap(lambda x: generator.generate(generator.variables, x, labels[:1]))(
    jnp.broadcast_to(latents[2:3], (devices, 1, *latents.shape[1:]))
  )
  np.testing.assert_allclose(
    many, np.broadcast_to(images[2:3], many.shape), atol=1e-2 * np.abs(images).max(), rtol=0
  )


def test_a_shifted_latent_gets_noise_of_its_own_in_every_layer():
  latents = golden()["w"]
  direction = np.zeros(latents.shape[1:], np.float32)
  direction[5] = 1
  fields = [stylegan2.draw_noise(x, (64, 64)) for x in (latents, latents + 5 * direction)]
  for one, other in itertools.combinations([x[0] for pair in fields for x in pair], 2):
    assert np.abs(np.corrcoef(np.ravel(one), np.ravel(other))[0, 1]) < 0.08
  assert abs(np.std(fields[0][0]) - 1) < 0.03 and abs(np.mean(fields[0][0])) < 0.03


def test_a_gradient_passes_random_noise():
  generator = small_generator("random")

  def brightness(latents):
    return jnp.mean(generator.generate(generator.variables, latents, None) ** 2)

  gradient = jax.jit(jax.grad(brightness))(small_latents())
  assert np.isfinite(gradient).all() and np.all(np.abs(gradient).max(axis=-1) > 0)


def test_random_noise_needs_a_file_that_holds_its_strength():
  _, config, variables = converted()
  old = jax.tree.map(np.array, variables)
  for name, block in old["params"]["synthesis"].items():
    if name.startswith("block"):
      for layer in block.values():
        layer.pop("noise_strength", None)
  stylegan2.build(config, old, "old")
  with pytest.raises(ValueError, match=r"noise='random': .*convert the checkpoint again"):
    stylegan2.build({**config, "noise": "random"}, old, "old")


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"noise": "loud"}, "noise='loud': expected one of const, none, random"),
    ({"truncation_psi": "half"}, "truncation_psi='half': expected a number, such as 0.5"),
    ({"truncation_psi": float("nan")}, "truncation_psi=nan: expected a number"),
    (
      {"truncation_cutoff": -1},
      "truncation_cutoff=-1: expected the number of rows of w",
    ),
    ({"truncation_cutoff": 2.5}, "truncation_cutoff=2.5: expected the number of rows"),
  ],
)
def test_a_wrong_option_is_named(options, message):
  with pytest.raises(ValueError, match=rf"config\.generator_options\.{message}"):
    make_generator(**options)
  assert set(options) <= set(stylegan2.OPTIONS)
