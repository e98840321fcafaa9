"""Self-conditioned GANs and their unconditional baseline."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole_runs import GOLDEN

from checkpoints_convert import selfcond, torch_reader
from checkpoints_convert.convert import convert_file
from unseg_jax import generators

EMBEDDING = "get_latent.embedding.weight"


@pytest.fixture(scope="module", params=["selfcond", "uncond"])
def name(request):
  return request.param


@pytest.fixture(scope="module")
def generator(name, tmp_path_factory):
  path = tmp_path_factory.mktemp(name) / "converted.safetensors"
  convert_file(GOLDEN / f"{name}.pth", path, "selfcond")
  return generators.load(path)


@pytest.fixture(scope="module")
def generate(generator):
  """The generator's function, compiled once for all tests, which generate two images each."""

  def highest(*arguments):
    with jax.default_matmul_precision("highest"):
      return generator.generate(*arguments)

  return jax.jit(highest)


def read(name="selfcond", **changes):
  """A generator's state dict with keys replaced, or removed for None."""
  arrays = torch_reader.read(GOLDEN / f"{name}.pth")["generator"] | changes
  return {key: array for key, array in arrays.items() if array is not None}


def test_it_makes_upstreams_images(name, generator, generate):
  golden = np.load(GOLDEN / f"{name}.npz")
  images = generate(generator.variables, golden["z"], golden["label"].astype(np.int32))
  assert images.dtype == jnp.float32
  np.testing.assert_allclose(images, golden["image"], atol=1e-5, rtol=0)


def test_it_tells_what_it_is(name, generator):
  assert (generator.image_size, generator.latent_shape) == (128, (32,))
  assert generator.num_classes == {"selfcond": 7, "uncond": None}[name]


def test_only_the_conditional_one_heeds_the_labels(name, generator, generate):
  latents = jnp.broadcast_to(generator.sample_latents(jax.random.key(0), 1), (2, 32))
  images = generate(generator.variables, latents, jnp.array([0, 1]))
  difference = jnp.abs(images[0] - images[1]).max()
  assert difference > 0.01 if name == "selfcond" else difference == 0


def test_it_computes_in_bfloat16_and_still_returns_float32(generator):
  latents, labels = generators.sample_at(generator, jax.random.key(0), jnp.arange(2))
  inputs = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (generator.variables, latents))
  lowered = jax.jit(generator.generate).lower(*inputs, labels)
  assert lowered.out_info.dtype == jnp.float32
  products = re.findall(
    r"stablehlo\.(?:convolution|dot_general).*x(\w+)>$", lowered.as_text(), re.M
  )
  assert len(products) > 20 and set(products) == {"bf16"}


def test_keys_of_data_parallel_training_are_accepted(name):
  arrays = read(name)
  expected = selfcond.convert({"generator": arrays, "it": 1}, {})
  for checkpoint in (
    {"generator": {f"module.{key}": array for key, array in arrays.items()}, "it": 1},
    arrays,
  ):
    converted = selfcond.convert(checkpoint, {})
    assert converted[:2] == expected[:2]
    jax.tree.map(np.testing.assert_array_equal, converted[2], expected[2])


def test_the_published_files_are_checked_for_their_latents():
  for variant in selfcond.VARIANTS.values():
    with pytest.raises(ValueError, match=r"fc\.weight has shape \[512, 48\], expected \[512, 272"):
      selfcond.convert(read(), variant.settings)
  _, config, _ = selfcond.convert(read(), {"z_dim": 32})
  assert config["latent_size"] == 32
  # Without its embedding, it looks like an unconditional generator with longer latents.
  with pytest.raises(ValueError, match=r"fc\.weight has shape \[512, 48\], expected \[512, 32\]"):
    selfcond.convert(read(**{EMBEDDING: None}), {"z_dim": 32})


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"fc.bias": None}, "missing keys: fc.bias"),
    ({"fc.weight": None}, "missing keys: fc.weight"),
    ({"conv_img.weight": None}, "missing keys: conv_img.weight"),
    ({"resnet_2_0.conv_s.weight": None}, "missing keys: resnet_2_0.conv_s.weight"),
    ({"resnet_0_0.conv_s.weight": np.ones((32, 32, 1, 1))}, "unexpected keys: resnet_0_0.conv_s."),
    ({"fc.weight": np.ones((500, 48))}, "fc.weight has shape [500, 48], expected [288, 48]"),
    ({EMBEDDING: np.ones(7)}, f"{EMBEDDING} has shape [7], expected [7, 1]"),
    (
      {"resnet_5_1.conv_1.weight": np.ones((2, 2, 1, 1))},
      "resnet_5_1.conv_1.weight has shape [2, 2, 1, 1], expected [2, 2, 3, 3]",
    ),
    ({"resnet_3_0.conv_0.bias": np.full(8, np.nan)}, "resnet_3_0.conv_0.bias holds NaN"),
  ],
)
def test_what_is_not_quite_such_a_generator_is_refused(changes, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    selfcond.convert({"generator": read(**changes)}, {})


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"z_dim": "32"}, "the setting z_dim is '32', expected a whole number of at least 1"),
    ({"z_dim": 0}, "the setting z_dim is 0, expected a whole number"),
    ({"nlabels": 7}, "unknown settings: nlabels; expected z_dim"),
  ],
)
def test_a_wrong_setting_is_refused(settings, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    selfcond.convert(read(), settings)
