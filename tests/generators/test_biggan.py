"""BigGAN and BigBiGAN generate upstream's images, or raise clear errors."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole_runs import GOLDEN

from checkpoints_convert import biggan as converter
from checkpoints_convert import torch_reader
from unseg_jax.generators import biggan

SETTINGS = {"BN_eps": 1e-4, "SN_eps": 1e-4}


def small_checkpoint(**changes):
  """Upstream's state dict with keys replaced, or removed for None."""
  checkpoint = torch_reader.read(GOLDEN / "biggan.pth") | changes
  return {key: array for key, array in checkpoint.items() if array is not None}


def make(settings, **changes):
  _, config, variables = converter.convert(small_checkpoint(**changes), settings)
  return biggan.build(config, variables, "identity")


@pytest.fixture(scope="module")
def golden():
  return np.load(GOLDEN / "biggan.npz")


@pytest.fixture(scope="module")
def unconditional():
  return make(converter.VARIANTS["bigbigan-128"].settings)


def test_biggan_makes_upstreams_pictures(golden):
  generator = make(SETTINGS)
  assert (generator.image_size, generator.latent_shape) == (128, (120,))
  assert generator.num_classes == 10
  with jax.default_matmul_precision("highest"):
    images = jax.jit(generator.generate)(generator.variables, golden["z"], golden["label"])
  np.testing.assert_allclose(images, golden["image"], atol=2e-5, rtol=0)


def test_bigbigan_makes_upstreams_pictures_of_label_0_whatever_the_labels(golden, unconditional):
  assert unconditional.num_classes is None
  assert "shared" not in unconditional.variables["params"]
  generate = jax.jit(unconditional.generate)
  with jax.default_matmul_precision("highest"):
    images = generate(unconditional.variables, golden["z"], golden["label"])
  np.testing.assert_allclose(images, golden["image_label0"], atol=2e-5, rtol=0)


def test_latents_get_finite_gradients(golden, unconditional):
  def brightness(latents):
    return unconditional.generate(unconditional.variables, latents, None).mean()

  gradient = np.asarray(jax.jit(jax.grad(brightness))(golden["z"]))
  assert np.isfinite(gradient).all()
  # Every block is conditioned on its own part of the latents.
  assert (np.abs(gradient).reshape(2, 6, 20).max(axis=-1) > 0).all()


def test_bfloat16_gives_nearly_the_same_pictures_as_float32(golden, unconditional):
  variables, latents = jax.tree.map(
    lambda x: jnp.asarray(x, jnp.bfloat16), (unconditional.variables, golden["z"])
  )
  images = jax.jit(unconditional.generate)(variables, latents, None)
  assert images.dtype == jnp.float32 and np.isfinite(images).all()
  assert np.abs(images - golden["image_label0"]).mean() < 0.02
  # All computations are in bfloat16; none falls back to float32.
  steps = str(jax.make_jaxpr(unconditional.generate)(variables, latents, None))
  assert re.search(r"bf16\[2,128,128,4\]", steps)
  assert not re.search(r"f32\[2,\d+,\d+,(?!3\])", steps)


def test_what_tensorflow_leaves_different_does_not_matter():
  gamma = small_checkpoint()["blocks.3.1.gamma"]
  plain = small_checkpoint()
  changed = {key: a for key, a in plain.items() if not key.endswith(".sv0")}
  changed["blocks.3.1.gamma"] = gamma.reshape(1)
  expected, variables = (converter.convert(arrays, SETTINGS)[2] for arrays in (plain, changed))
  jax.tree.map(np.testing.assert_array_equal, variables, expected)


def test_a_network_without_attention_and_pieces_of_latents_is_read_off_its_shapes():
  shapes = {key: array for key, array in small_checkpoint().items() if ".3.1." not in key}
  for key, array in shapes.items():
    if re.search(r"bn\d\.(gain|bias)\.weight", key):
      shapes[key] = array[:, :16]
  _, config, _ = converter.convert(shapes, SETTINGS)
  assert config == {
    "latent_size": 20,
    "widths": [64, 64, 32, 16, 8, 4],
    "num_classes": 10,
    "shared_size": 16,
    "hierarchical": False,
    "attention": [],
  }
  with pytest.raises(ValueError, match="unconditional is true, but only the class conditions"):
    converter.convert(shapes, SETTINGS | {"unconditional": True})


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({}, r"the setting BN_eps is missing.*--variant=bigbigan-128 .*--config="),
    ({"BN_eps": 1e-5}, "the setting SN_eps is missing"),
    (SETTINGS | {"bn_eps": 1e-5}, "unknown settings: bn_eps; expected BN_eps, SN_eps, uncond"),
    (SETTINGS | {"BN_eps": "1e-5"}, "BN_eps is '1e-5', expected a number between 0 and 1"),
    (SETTINGS | {"SN_eps": 0}, "SN_eps is 0, expected a number between 0 and 1"),
    (SETTINGS | {"unconditional": "no"}, "unconditional is 'no', expected true or false"),
  ],
)
def test_settings_that_are_missing_or_wrong_are_named(settings, message):
  with pytest.raises(ValueError, match=message):
    converter.convert(small_checkpoint(), settings)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"linear.u0": None}, "missing keys: linear.u0"),
    ({"shared.weight": None}, "missing keys: shared.weight"),
    ({"blocks.3.1.theta.weight": None}, "missing keys: blocks.3.1.theta.weight"),
    ({"blocks.3.0.conv1.bias": None}, "missing keys: blocks.3.0.conv1.bias"),
    ({"extra": np.ones(2)}, "unexpected keys: extra"),
    (
      {"linear.weight": np.ones((1024, 21))},  # One more latent, which the norms do not support.
      "blocks.0.0.bn1.gain.weight has shape [64, 36], expected [64, 37]",
    ),
    ({"blocks.1.0.bn1.stored_var": np.full(64, -1.0)}, "expected variances of at least 0"),
  ],
)
def test_a_checkpoint_that_is_not_quite_a_biggan_is_refused(changes, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    converter.convert(small_checkpoint(**changes), SETTINGS)


@pytest.mark.parametrize("name", ["studiogan_big_resnet", "dcgan"])
def test_a_checkpoint_of_another_project_is_refused(name):
  checkpoint = torch_reader.read(GOLDEN / f"{name}.pth")
  for arrays in (checkpoint, next(iter(checkpoint.values()))):
    with pytest.raises(ValueError, match=r"missing keys: .*; unexpected keys: "):
      converter.convert(arrays, SETTINGS)
  assert all(key in small_checkpoint() and key not in arrays for key in converter.SIGNATURE)
