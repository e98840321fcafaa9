"""rosinality's converted StyleGAN2 generates the original's latents and images."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole_runs import GOLDEN

from checkpoints_convert import rosinality, torch_reader
from checkpoints_convert import stylegan2 as nvidia
from unseg_jax import generators
from unseg_jax.generators import style_latents, stylegan2


@functools.cache
def golden():
  return dict(np.load(GOLDEN / "stylegan2_rosinality.npz"))


def read(**changes):
  """The small network's checkpoint with averaged arrays replaced, or removed for None."""
  checkpoint = torch_reader.read(GOLDEN / "stylegan2_rosinality.pth")
  arrays = checkpoint["g_ema"] | changes
  return checkpoint | {"g_ema": {k: array for k, array in arrays.items() if array is not None}}


def without_average():
  """In the format of training checkpoints."""
  return {key: value for key, value in read().items() if key != "latent_avg"}


@functools.cache
def converted():
  return rosinality.convert(read(), {})


def random_checkpoint(channels, style_dim=6, depth=2):
  """A published checkpoint with every array of a network, randomly filled."""
  random = np.random.default_rng(0)
  convolutions = {"conv1": (channels[0], channels[0], 4)}
  colours = {"to_rgb1": channels[0]}
  for i in range(1, len(channels)):
    size_in, size_out, side = channels[i - 1], channels[i], 4 * 2**i
    convolutions[f"convs.{2 * i - 2}"] = (size_in, size_out, side)
    convolutions[f"convs.{2 * i - 1}"] = (size_out, size_out, side)
    colours[f"to_rgbs.{i - 1}"] = size_out
  shapes = {"input.input": (1, channels[0], 4, 4)}
  for i in range(depth):
    shapes |= {f"style.{i + 1}.weight": (style_dim,) * 2, f"style.{i + 1}.bias": (style_dim,)}
  for number, (name, (size_in, size_out, side)) in enumerate(convolutions.items()):
    shapes[f"{name}.conv.weight"] = (1, size_out, size_in, 3, 3)
    shapes |= {f"{name}.noise.weight": (1,), f"{name}.activate.bias": (size_out,)}
    shapes[f"noises.noise_{number}"] = (1, 1, side, side)
  for name, size_in in colours.items():
    shapes |= {f"{name}.conv.weight": (1, 3, size_in, 1, 1), f"{name}.bias": (1, 3, 1, 1)}
  for name, size_in in {**{n: s[0] for n, s in convolutions.items()}, **colours}.items():
    shapes[f"{name}.conv.modulation.weight"] = (size_in, style_dim)
    shapes[f"{name}.conv.modulation.bias"] = (size_in,)
  arrays = {key: random.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
  taps = np.outer((1, 3, 3, 1), (1, 3, 3, 1)).astype(np.float32) / 16
  for i in range(len(channels) - 1):
    arrays |= {f"convs.{2 * i}.conv.blur.kernel": taps, f"to_rgbs.{i}.upsample.kernel": taps}
  return arrays


def make_images(generator, latents):
  with jax.default_matmul_precision("highest"):
    return jax.jit(generator.generate)(generator.variables, latents, None)


@pytest.mark.parametrize(
  ("noise", "latents", "name"),
  [
    ("const", "w_truncated", "image"),
    ("const", "w", "image_untruncated"),
    ("none", "w_truncated", "image_no_noise"),
    ("const", "w_plus", "image_w_plus"),
  ],
)
def test_the_original_images_are_made(noise, latents, name):
  architecture, config, variables = converted()
  assert architecture == "stylegan2"
  generator = stylegan2.build(config | {"noise": noise}, variables, "small")
  images = make_images(generator, golden()[latents])
  np.testing.assert_allclose(images, golden()[name], atol=2e-6, rtol=0)


@pytest.mark.parametrize(("psi", "name"), [(1, "w"), (0.5, "w_truncated")])
def test_the_original_latents_are_drawn_truncated_in_every_row(psi, name):
  _, config, variables = converted()
  generator = stylegan2.build(config | {"truncation_psi": psi}, variables, "small")
  assert generator.latent_shape == golden()[name].shape[1:]
  assert config["truncation_cutoff"] is None
  mapping = style_latents.Mapping(
    tuple(config["mapping_widths"]), 10, truncation_psi=psi, truncation_cutoff=None
  )
  latents = mapping.apply({"params": variables["params"]["mapping"]}, golden()["z"], None)
  np.testing.assert_allclose(latents, golden()[name], atol=1e-5, rtol=0)
  drawn, _ = generators.sample_at(generator, jax.random.key(0), jnp.arange(3))
  np.testing.assert_array_equal(drawn, np.repeat(drawn[:, :1], 10, axis=1))


def test_an_average_that_is_not_stored_is_computed():
  def average(checkpoint):
    return rosinality.convert(checkpoint, {})[2]["params"]["mapping"]["average"]

  stored, computed = average(read()), average(without_average())
  np.testing.assert_array_equal(stored, golden()["latent_avg"])
  np.testing.assert_array_equal(computed, average(without_average()))
  assert computed.dtype == np.float32

  # Upstream's computation in its own order, without folding.
  x = np.random.RandomState(0).standard_normal((4096, 32))
  x = x / np.sqrt(np.mean(x**2, axis=1, keepdims=True) + 1e-8)
  arrays = read()["g_ema"]
  for i in (1, 2, 3, 4):
    weight, bias = (arrays[f"style.{i}.{name}"].astype(float) for name in ("weight", "bias"))
    x = x @ (weight.T * 0.01 / np.sqrt(32)) + 0.01 * bias
    x = np.sqrt(2) * np.where(x < 0, 0.2 * x, x)
  np.testing.assert_allclose(computed, x.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("channels", [(4,), (6, 3, 5), (2, 2, 2, 2, 2, 2, 2)])
@pytest.mark.parametrize("depth", [1, 3])
def test_sizes_are_read_off_the_shapes(channels, depth):
  arrays = random_checkpoint(channels, style_dim=5, depth=depth)
  for checkpoint in (arrays, {"g": {}, "g_ema": arrays}):
    _, config, variables = rosinality.convert(checkpoint, {})
    generator = stylegan2.build(config, variables, "small")
    assert generator.image_size == 2 * 2 ** len(channels)
    assert generator.latent_shape == (2 * len(channels), 5)
    assert config["channels"] == list(channels) and config["mapping_widths"] == [5] * depth
    latents = jax.ShapeDtypeStruct((2, *generator.latent_shape), jnp.float32)
    images = jax.eval_shape(generator.generate, generator.variables, latents, None)
    assert images.shape == (2, generator.image_size, generator.image_size, 3)


def test_the_multiplier_of_the_mapping_network_can_be_set():
  doubled = rosinality.convert(read(), {"lr_mlp": 0.02})[2]["params"]["mapping"]["dense_0"]
  expected = converted()[2]["params"]["mapping"]["dense_0"]
  np.testing.assert_allclose(doubled["kernel"], 2 * expected["kernel"], rtol=1e-6)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"style.2.bias": None}, "missing keys: style.2.bias"),
    ({"noises.noise_3": None}, "missing keys: noises.noise_3"),
    ({"convs.2.conv.blur.kernel": None}, "missing keys: convs.2.conv.blur.kernel"),
    ({"extra.weight": np.ones(2)}, "unexpected keys: extra.weight"),
    ({"conv1.activate.bias": np.ones(3)}, "conv1.activate.bias has shape [3], expected [20]"),
    (
      {"to_rgbs.1.upsample.kernel": np.ones((4, 4)) / 4},
      "to_rgbs.1.upsample.kernel is not the filter [1, 3, 3, 1]",
    ),
    ({"convs.0.conv.weight": "no array"}, "convs.0.conv.weight is of type str, expected an array"),
  ],
)
def test_a_checkpoint_that_is_not_quite_rosinalitys_is_refused_in_its_own_names(changes, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    rosinality.convert(read(**changes), {})


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"lr_mlp": 0}, "lr_mlp is 0, expected a positive number: use --config=FILE"),
    ({"lr_mlp": "0.01"}, "lr_mlp is '0.01', expected a positive number"),
    ({"size": 64}, "unknown settings: size; expected lr_mlp"),
  ],
)
def test_a_wrong_setting_is_named(settings, message):
  with pytest.raises(ValueError, match=message):
    rosinality.convert(read(), settings)


def test_the_formats_of_stylegan2_are_distinguished():
  arrays = read()["g_ema"]
  assert all(key in arrays for key in rosinality.SIGNATURE)
  assert not any(key in arrays for key in nvidia.SIGNATURE)
