"""BigGAN-deep: Hugging Face's with its statistics by truncation, and StudioGAN's."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from pytorch_pretrained_biggan import BigGAN, BigGANConfig
from whole_runs import GOLDEN

from checkpoints_convert import biggan_deep as conversion
from checkpoints_convert import state_dict, torch_reader
from unseg_jax.generators import biggan_deep

# A network of 16 x 16 pixels with all features of a large one.
SMALL_CONFIG = {
  "output_dim": 16,
  "z_dim": 6,
  "class_embed_dim": 6,
  "channel_width": 4,
  "num_classes": 5,
  "layers": [[False, 16, 8], [True, 8, 4], [False, 4, 2], [True, 2, 1]],
  "attention_layer_position": 2,
  "eps": 1e-4,
  "n_stats": 51,
}


class Golden:
  """A small random network, upstream's images of some latents, and its conversion."""

  def __init__(self, name):
    arrays = np.load(GOLDEN / f"{name}.npz")
    self.settings = json.loads(str(arrays["config"]))
    self.checkpoint = torch_reader.read(GOLDEN / f"{name}.pth")
    self.arrays = arrays
    if "state_dict" in self.checkpoint:
      self.checkpoint = self.checkpoint["state_dict"]
      self.config, self.variables = conversion.studiogan_variables(self.state(), self.settings)
    else:
      _, self.config, self.variables = conversion.convert(self.checkpoint, self.settings)
    self.generate = jax.jit(self.build().generate)  # The same network for all truncations.

  def state(self, **changes):
    """The state dict with arrays replaced, or removed for None."""
    arrays = {k: a for k, a in (self.checkpoint | changes).items() if a is not None}
    return state_dict.StateDict(arrays)

  def build(self, **options):
    return biggan_deep.build(self.config | options, self.variables, "a golden network")

  def images(self, **options):
    with jax.default_matmul_precision("highest"):
      return self.generate(self.build(**options).variables, self.arrays["z"], self.arrays["label"])


@pytest.fixture(scope="module")
def hugging_face():
  return Golden("biggan_deep")


@pytest.fixture(scope="module")
def studiogan():
  return Golden("studiogan_big_resnet_deep")


@pytest.fixture(scope="module")
def package():
  """A random network of the package for which the weights were published."""
  torch.manual_seed(0)
  model = BigGAN(BigGANConfig(**SMALL_CONFIG))
  for name, array in model.state_dict().items():
    if name.endswith(("running_means", "bn.bias")):
      array.normal_(0, 0.3)
    elif name.endswith(("running_vars", "bn.weight")):
      array.uniform_(0.5, 1.5)
    elif name.endswith("gamma"):
      array.fill_(0.7)
  with torch.no_grad():
    for _ in range(3):  # Training mode computes its spectral norms.
      model(torch.randn(1, 6), torch.eye(5)[:1], 0.5)
  return model.eval()


@pytest.fixture(scope="module")
def converted(package):
  """The same network's generator at a truncation."""
  checkpoint = {key: array.numpy() for key, array in package.state_dict().items()}
  _, config, variables = conversion.convert(checkpoint, SMALL_CONFIG)
  return lambda truncation: biggan_deep.build(config | {"truncation": truncation}, variables, "")


@pytest.fixture(scope="module")
def gradient_of(converted):
  """The gradient of a weighted sum of images with respect to latents, and the images."""
  generate = converted(1).generate

  def loss(latents, variables, labels, weights):
    images = generate(variables, latents, labels)
    return (images * weights).sum(), images

  return jax.jit(jax.grad(loss, has_aux=True))


# Hugging Face.


@pytest.mark.parametrize(
  ("options", "name"),
  [
    ({}, "image"),
    ({"truncation": 0.4}, "image"),
    ({"truncation": 0.37}, "image_trunc_0.37"),
    ({"truncation": 1}, "image_trunc_1.0"),
  ],
)
def test_it_makes_hugging_faces_pictures_at_any_truncation(hugging_face, options, name):
  images = hugging_face.images(**options)
  assert images.shape == (2, 128, 128, 3) and images.dtype == jnp.float32
  assert np.abs(images - hugging_face.arrays[name]).max() < 1e-5
  generator = hugging_face.build(**options)
  assert (generator.image_size, generator.latent_shape, generator.num_classes) == (128, (16,), 10)


@pytest.mark.parametrize("truncation", [0.415, 0.58, 0.995])
def test_pictures_and_gradients_are_the_packages(package, converted, gradient_of, truncation):
  random = np.random.default_rng(0)
  latents, labels = random.normal(size=(3, 6)).astype(np.float32), np.array([4, 0, 2])
  weights = random.normal(size=(3, 16, 16, 3)).astype(np.float32)
  inputs = torch.tensor(latents, requires_grad=True)
  expected = package(inputs, torch.eye(5)[labels], truncation).permute(0, 2, 3, 1)
  (expected * torch.tensor(weights)).sum().backward()

  variables = converted(truncation).variables
  with jax.default_matmul_precision("highest"):
    gradient, images = gradient_of(latents, variables, labels, weights)
  assert np.abs(images - expected.detach().numpy()).max() < 1e-5
  assert np.ptp(images, axis=(1, 2)).min() > 0.1  # Otherwise the comparison is meaningless.
  expected_gradient = inputs.grad.numpy()
  error = np.linalg.norm(gradient - expected_gradient) / np.linalg.norm(expected_gradient)
  assert error < 1e-3


@pytest.mark.parametrize("truncation", [0, 1.01, -0.4, float("nan"), True, "0.4", None])
def test_a_truncation_out_of_range_is_named(hugging_face, truncation):
  with pytest.raises(ValueError, match=f"truncation is {truncation!r}, expected a number above 0"):
    hugging_face.build(truncation=truncation)


@pytest.mark.parametrize("truncation", [0.4, 1.0])
def test_latents_are_a_truncated_normal_times_the_truncation(hugging_face, truncation):
  generator = hugging_face.build(truncation=truncation)
  latents = generator.sample_latents(jax.random.key(0), 2000)
  assert latents.shape == (2000, 16) and latents.dtype == jnp.float32
  assert 1.99 * truncation < np.abs(latents).max() <= 2 * truncation
  # The standard deviation of N(0, 1) within [-2, 2] is 0.880.
  assert latents.std() == pytest.approx(0.880 * truncation, rel=0.01)
  assert abs(latents.mean()) < 0.02 * truncation


def test_in_bfloat16_pictures_are_close(package, converted):
  latents = np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32)
  with torch.no_grad():
    expected = package(torch.tensor(latents), torch.eye(5)[:3], 0.4).permute(0, 2, 3, 1)
  generator = converted(0.4)
  inputs = (generator.variables, latents)
  inputs = jax.tree.map(lambda array: jnp.asarray(array, jnp.bfloat16), inputs)
  images = jax.jit(generator.generate)(*inputs, jnp.arange(3))
  assert images.dtype == jnp.float32
  assert 0 < np.abs(images - expected.numpy()).max() < 0.1


def test_the_published_networks_have_their_sizes():
  packages = BigGANConfig()  # of the 128 x 128 network
  variants = conversion.VARIANTS
  assert variants["biggan-deep-128"].settings["eps"] == packages.eps
  layers = {name: [tuple(layer) for layer in v.settings["layers"]] for name, v in variants.items()}
  assert layers["biggan-deep-128"] == packages.layers
  for size in (128, 256, 512):
    assert 4 * 2 ** sum(up for up, _, _ in layers[f"biggan-deep-{size}"]) == size
    assert f"biggan-deep-{size}-" in variants[f"biggan-deep-{size}"].url


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"generator.layers.3.bn_1.scale.weight_orig": None}, "missing keys: generator.layers.3.bn_1"),
    ({"generator.layers.8.gamma": None}, "missing keys: generator.layers.8.gamma"),
    ({"generator.layers.3.conv_3.bias": None}, "missing keys: generator.layers.3.conv_3.bias"),
    ({"generator.gen_z.bias": None}, "missing keys: generator.gen_z.bias"),
    ({"embeddings.bias": np.ones(16)}, "unexpected keys: embeddings.bias"),
    (
      {"generator.bn.running_means": np.ones((50, 4))},
      "generator.bn.running_means has shape [50, 4], expected [51, 4]",
    ),
    (
      {"generator.layers.0.conv_1.weight_orig": np.ones((16, 16, 1, 1))},
      "conv_1.weight_orig has shape [16, 16, 1, 1], expected [16, 16, 3, 3]",
    ),
    (
      {"generator.layers.4.bn_2.running_vars": np.full((51, 8), -1.0)},
      "running_vars holds -1.0, expected variances of at least 0",
    ),
  ],
)
def test_a_checkpoint_that_is_not_quite_hugging_faces_is_refused(hugging_face, changes, message):
  checkpoint = hugging_face.checkpoint | changes
  checkpoint = {key: array for key, array in checkpoint.items() if array is not None}
  with pytest.raises(ValueError, match=re.escape(message)):
    conversion.convert(checkpoint, hugging_face.settings)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"eps": None}, r"setting eps is missing.*--variant=biggan-deep-128 or.*--config"),
    ({"layers": None}, r"setting layers is missing.*--variant=biggan-deep-128 or.*--config"),
    ({"colour": 1}, "unknown settings: colour"),
    ({"eps": -1}, "eps is -1, expected a number"),
    ({"layers": [[16, 16]]}, r"layers is \[\[16, 16\]\], expected a list of \[true or false"),
    (conversion.VARIANTS["biggan-deep-256"].settings, "layers describes a network with 12 blocks"),
    ({"output_dim": 256}, "output_dim is 256, expected 128: give --variant"),
    ({"attention_layer_position": 6}, "attention_layer_position is 6, expected 8"),
  ],
)
def test_settings_that_do_not_fit_are_named(hugging_face, changes, message):
  settings = hugging_face.settings | changes
  settings = {name: value for name, value in settings.items() if value is not None}
  with pytest.raises(ValueError, match=message):
    conversion.convert(hugging_face.checkpoint, settings)


# StudioGAN.


def test_it_makes_studiogans_pictures(studiogan):
  assert np.abs(studiogan.images() - studiogan.arrays["image"]).max() < 1e-5
  generator = studiogan.build()
  assert (generator.image_size, generator.latent_shape, generator.num_classes) == (128, (32,), 10)
  latents = generator.sample_latents(jax.random.key(0), 1000)
  assert np.abs(latents).max() > 3 and latents.std() == pytest.approx(1, rel=0.02)


def test_studiogans_network_has_no_truncation(studiogan):
  with pytest.raises(ValueError, match=r"truncation is 0\.4, expected none.*omit the option"):
    studiogan.build(truncation=0.4)


def test_without_settings_studiogans_arrays_tell_the_same(studiogan):
  config, _ = conversion.studiogan_variables(studiogan.state(), {})
  assert config == studiogan.config


def test_studiogans_network_may_lack_spectral_norms(studiogan):
  changes = {}
  for key, array in studiogan.checkpoint.items():
    if key.endswith(".weight_orig"):
      prefix = key.removesuffix(".weight_orig")
      weight = state_dict.torch_spectral_norm(studiogan.state(), prefix, *array.shape)
      changes |= {f"{prefix}.weight_{name}": None for name in ("orig", "u", "v")}
      changes[f"{prefix}.weight"] = weight
  config, variables = conversion.studiogan_variables(studiogan.state(**changes), {})
  assert config == studiogan.config
  jax.tree.map(np.testing.assert_array_equal, variables, studiogan.variables)


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"img_size": 256}, "img_size is 256, expected 128: pass the config"),
    ({"G_depth": 3}, "G_depth is 3, expected a divisor of the number of blocks, 10"),
    ({"activation_fn": "Leaky_ReLU"}, "activation_fn is 'Leaky_ReLU', expected 'ReLU'"),
    ({"z_dim": 120}, "z_dim is 120, expected 32"),
  ],
)
def test_settings_of_another_studiogan_network_are_named(studiogan, settings, message):
  with pytest.raises(ValueError, match=message):
    conversion.studiogan_variables(studiogan.state(), settings)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"linear0.weight_u": None}, "missing keys: linear0.weight_u"),
    ({"extra": np.ones(2)}, "unexpected keys: extra"),
    ({"blocks.2.0.bn3.bn.running_mean": np.ones(4)}, "has shape [4], expected [16]"),
  ],
)
def test_a_checkpoint_that_is_not_quite_studiogans_is_refused(studiogan, changes, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    conversion.studiogan_variables(studiogan.state(**changes), {})
