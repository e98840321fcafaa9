"""Networks with grey or RGBA images return RGB."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from whole_runs import GOLDEN

from checkpoints_convert import convert, torch_reader
from unseg_jax import generators
from unseg_jax.generators import layers

# Checkpoint -> format, settings, and the keys of the last layer with the axis of channels.
LAST = {
  "biggan": ("biggan", {"BN_eps": 1e-5, "SN_eps": 1e-6}, {r"output_layer\.2\.(weight|bias)": 0}),
  "dcgan": ("dcgan", {}, {r"main\.12\.weight": 1}),
  "selfcond": ("selfcond", {}, {r"conv_img\.(weight|bias)": 0}),
  "studiogan_big_resnet_deep": ("studiogan", {}, {r"conv2d5\.(weight_orig|weight|bias)": 0}),
  "studiogan_sagan": ("studiogan", {}, {r"conv2d5\.(weight_orig|weight|bias)": 0}),
  "stylegan2": ("stylegan2", {}, {r"synthesis\.b\d+\.torgb\.(weight|bias)": 0}),
}
SPECTRAL = {
  "biggan": {"output_layer.2.u0": 1},
  "studiogan_big_resnet_deep": {"conv2d5.weight_u": 0},
  "studiogan_sagan": {"conv2d5.weight_u": 0},
}


def with_channels(name, channels):
  """A golden network reduced to its first channel, or with its first channel appended."""
  checkpoint = torch_reader.read(GOLDEN / f"{name}.pth")
  for entry in ("generator", "netG_state_dict", "state_dict"):
    checkpoint = checkpoint.get(entry, checkpoint)
  chosen = [0, 1, 2, 0, 1][:channels]
  changed = dict(checkpoint)
  for pattern, axis in LAST[name][2].items():
    keys = [key for key in checkpoint if re.fullmatch(pattern, key)]
    assert keys
    changed |= {key: np.take(checkpoint[key], chosen, axis) for key in keys}
  for key, axis in SPECTRAL.get(name, {}).items():
    if key in checkpoint:
      changed[key] = np.take(checkpoint[key], chosen, axis)
  return changed


def make_images(name, channels, tmp_path):
  arrays = {key: torch.as_tensor(np.array(x)) for key, x in with_channels(name, channels).items()}
  source, output = tmp_path / f"{channels}.pth", tmp_path / f"{channels}.safetensors"
  torch.save(arrays, source)
  format_name, settings, _ = LAST[name]
  convert.convert_file(source, output, format_name, settings=settings)
  generator = generators.load(output)
  latents, labels = generators.sample_at(generator, jax.random.key(0), np.arange(2))
  return np.asarray(jax.jit(generator.generate)(generator.variables, latents, labels))


@pytest.mark.parametrize("name", ["dcgan", "selfcond", "stylegan2"])
def test_channels_become_rgb(name, tmp_path):
  rgb, grey, rgba = (make_images(name, channels, tmp_path) for channels in (3, 1, 4))
  assert rgb.shape == grey.shape == rgba.shape and rgb.shape[-1] == 3
  np.testing.assert_allclose(grey, np.repeat(rgb[..., :1], 3, axis=-1), atol=1e-4)
  alpha = np.clip((rgb[..., :1] + 1) / 2, 0, 1)
  np.testing.assert_allclose(rgba, rgb * alpha + (1 - alpha), atol=1e-4)


@pytest.mark.parametrize("name", ["biggan", "studiogan_big_resnet_deep", "studiogan_sagan"])
@pytest.mark.parametrize("channels", [1, 4])
def test_networks_with_spectral_norms_become_rgb(name, channels, tmp_path):
  images = make_images(name, channels, tmp_path)
  assert images.shape[-1] == 3 and np.isfinite(images).all() and np.abs(images).max() <= 1
  assert (channels == 1) == np.array_equal(images[..., 0], images[..., 1])


@pytest.mark.parametrize("name", LAST)
@pytest.mark.parametrize("channels", [2, 5])
def test_other_numbers_of_channels_are_named(name, channels, tmp_path):
  message = f"makes pictures of {channels} channels, expected 1 \\(grey\\), 3 \\(RGB\\) or 4"
  with pytest.raises(ValueError, match=message):
    make_images(name, channels, tmp_path)
  assert not (tmp_path / f"{channels}.safetensors").exists()


def test_transparent_pictures_are_white():
  pictures = np.zeros((1, 1, 4, 4), np.float32)
  pictures[..., 3] = [-2, -1, 0, 1]
  np.testing.assert_allclose(layers.as_rgb(jnp.asarray(pictures))[0, 0, :, 0], [1, 1, 0.5, 0])
