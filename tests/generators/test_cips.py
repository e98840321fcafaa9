"""The converted CIPS network generates the original's images on grids of any size."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from whole_runs import GOLDEN

from checkpoints_convert import cips as conversion
from checkpoints_convert import torch_reader
from unseg_jax import generators
from unseg_jax.generators import cips


@functools.cache
def golden():
  return dict(np.load(GOLDEN / "cips_skip.npz"))


def read(**changes):
  """The small network's arrays with keys replaced, or removed for None."""
  arrays = torch_reader.read(GOLDEN / "cips_skip.pth")["g_ema"] | changes
  return {key: array for key, array in arrays.items() if array is not None}


@functools.cache
def converted(image_size=32):
  return conversion.convert({"g_ema": read()}, {"image_size": image_size})


def make(image_size=32, **options):
  architecture, config, variables = converted(image_size)
  assert architecture == "cips"
  return cips.build({**config, **options}, variables, "small")


def make_images(generator, latents):
  with jax.default_matmul_precision("highest"):
    return jax.jit(generator.generate)(generator.variables, latents, None)


@pytest.mark.parametrize(
  ("image_size", "latents", "name"),
  [
    (32, "w_truncated", "image"),
    (32, "w", "image_untruncated"),
    (48, "w_truncated", "image_coords48"),
  ],
)
def test_the_original_images_are_made(image_size, latents, name):
  generator = make(image_size)
  assert generator.latent_shape == golden()[latents].shape[1:]
  images = make_images(generator, golden()[latents])
  assert images.dtype == jnp.float32
  assert images.shape[1:] == (generator.image_size, generator.image_size, 3)
  np.testing.assert_allclose(images, golden()[name], atol=5e-6, rtol=0)


def test_noise_that_is_given_makes_the_original_image():
  _, config, variables = converted()
  module = cips.Cips(config["hidden"], tuple(config["channels"]), 32, 32)
  params = {"params": variables["params"]["synthesis"]}
  with jax.default_matmul_precision("highest"):
    fields = list(np.moveaxis(golden()["noise"], 1, 0)[..., None])
    images = jax.jit(module.apply)(params, golden()["w_truncated"], fields)
  np.testing.assert_allclose(images, golden()["image_noise"], atol=5e-6, rtol=0)


def test_drawn_noise_is_a_function_of_the_latent_alone():
  latents = jnp.asarray(golden()["w_truncated"])
  with_noise, without = make(noise="random"), make()
  images = make_images(with_noise, latents)
  np.testing.assert_allclose(make_images(with_noise, latents[::-1])[::-1], images, atol=1e-5)
  # On average as far from the noise-free image as the original with its own noise.
  far = np.abs(images - make_images(without, latents)).mean()
  expected = np.abs(golden()["image_noise"] - golden()["image"]).mean()
  assert 0.7 < far / expected < 1.4


def test_latents_come_mapped_and_truncated():
  full, truncated = (
    generators.sample_at(make(truncation_psi=psi), jax.random.key(0), jnp.arange(50))[0]
    for psi in (1, 0.5)
  )
  average = converted()[2]["params"]["mapping"]["average"]
  assert full.shape == (50, 24)
  np.testing.assert_allclose(truncated, (average[None] + full) / 2, atol=1e-5)
  # Upstream stores no average; that of the golden file is over 1,024 other latents.
  standard_error = golden()["w"].std() * np.sqrt(1 / 1024 + 1 / 4096)
  assert np.abs(average - golden()["truncation_latent"]).max() < 5 * standard_error


@pytest.mark.parametrize(("size", "grid"), [(5, 7), (8, 8), (4, 11), (9, 3)])
def test_learned_features_are_sampled_as_pytorch_does(size, grid):
  picture = np.random.default_rng(0).normal(size=(size, size, 2)).astype(np.float32)
  line = torch.linspace(-1, 1, grid)
  rows, columns = torch.meshgrid(line, line, indexing="ij")
  expected = torch.nn.functional.grid_sample(
    torch.as_tensor(picture).permute(2, 0, 1)[None],
    torch.stack([columns, rows], dim=-1)[None],
    padding_mode="border",
    align_corners=False,
  )
  sampled = cips._resample(jnp.asarray(picture), grid)
  np.testing.assert_allclose(sampled, expected[0].permute(1, 2, 0), atol=1e-5)


def test_bfloat16_makes_nearly_the_same_images():
  generator = generators.with_dtype(make(), "bfloat16")
  images = make_images(generator, golden()["w_truncated"])
  assert images.dtype == jnp.float32
  assert 0 < np.abs(images - golden()["image"]).mean() < 0.05


def test_the_largest_network_builds():
  config = converted()[1] | {
    "hidden": 512,
    "channels": (512, 512, 512, 512, 512, 512, 256, 128),
    "grid_size": 256,
    "image_size": 1024,
    "mapping_widths": [512] * 8,
  }
  module = cips.Cips(512, config["channels"], 256, 1024)
  latents = jax.ShapeDtypeStruct((2, 512), jnp.float32)
  variables = jax.eval_shape(module.init, jax.random.key(0), latents)
  params = {"synthesis": variables["params"], "mapping": {}}
  generator = cips.build(config, {"params": params}, "large")
  images = jax.eval_shape(generator.generate, generator.variables, latents, None)
  assert (images.shape, images.dtype) == ((2, 1024, 1024, 3), jnp.float32)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"to_rgbs.3.bias": None}, "unexpected keys: linears.6.conv.weight"),
    ({"linears.3.noise.weight": None}, "missing keys: linears.3.noise.weight"),
    ({"conv1.activate.bias": np.ones(3)}, "conv1.activate.bias has shape [3], expected [24]"),
    ({"emb.input": np.ones((1, 12, 32, 16))}, "emb.input has shape [1, 12, 32, 16], expected [1,"),
    ({"to_rgb_last.bias": np.ones((1, 3, 1, 1))}, "so it is a CIPSres: expected a CIPSskip"),
  ],
)
def test_a_checkpoint_that_is_not_quite_cips_is_refused_in_its_own_names(changes, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    conversion.convert(read(**changes), {})


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"image_size": 1}, "image_size=1: expected a whole number of pixels, at least 2"),
    ({"image_size": 64.0}, "image_size=64.0: expected a whole number"),
    ({"lr_mlp": -1}, "lr_mlp is -1, expected a positive number"),
    ({"size": 64}, "unknown settings: size; expected lr_mlp, image_size"),
  ],
)
def test_a_wrong_setting_is_named(settings, message):
  with pytest.raises(ValueError, match=message):
    conversion.convert(read(), settings)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"noise": "const"}, "noise='const': expected one of none, random"),
    ({"truncation_psi": "half"}, "truncation_psi='half': expected a number, such as 0.5"),
  ],
)
def test_a_wrong_option_is_named(options, message):
  with pytest.raises(ValueError, match=rf"config\.generator_options\.{message}"):
    make(**options)
  assert set(options) <= set(cips.OPTIONS)
