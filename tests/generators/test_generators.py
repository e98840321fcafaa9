"""The shipped generator, names of generators in configs, and sampling of latents."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole_runs import GOLDEN

from unseg_jax import generators
from unseg_jax.artifacts import generator_files
from unseg_jax.storage import whole_files

USER_MODULE = """
import jax.numpy as jnp
from unseg_jax.generators import Generator, normal_latents

def make():
  return Generator(
    variables={"gain": jnp.ones(3)},
    image_size=4,
    latent_shape=(3,),
    num_classes=5,
    sample_latents=normal_latents((3,)),
    generate=lambda variables, latents, labels: jnp.tanh(
      jnp.broadcast_to((variables["gain"][None] * latents)[:, None, None], (len(latents), 4, 4, 3))
    ),
    identity="users own",
  )

def wrong():
  return "not a generator"
"""


@pytest.fixture(scope="module")
def faces():
  return generators.load("pretrained:dcgan_faces")


@pytest.fixture
def user_module(tmp_path, monkeypatch):
  (tmp_path / "a_users_generators.py").write_text(USER_MODULE)
  monkeypatch.syspath_prepend(tmp_path)
  return "a_users_generators"


def test_the_shipped_generator_makes_the_original_images(faces):
  golden = np.load(GOLDEN / "search_dcgan_faces.npz")
  latents = golden["z"][0]
  with jax.default_matmul_precision("highest"):
    images = jax.jit(faces.generate)(faces.variables, latents, jnp.zeros(len(latents), jnp.int32))
  assert images.shape == (8, faces.image_size, faces.image_size, 3)
  np.testing.assert_allclose(images, golden["image_z0"], atol=1e-5, rtol=0)


def test_a_generator_is_known_by_its_files_hash(faces):
  path = pathlib.Path(generators.__file__).parents[1] / "pretrained" / "dcgan_faces.safetensors"
  assert faces.identity == whole_files.sha256(path)
  assert generators.resolve(str(path)).identity == faces.identity


def test_an_unknown_architecture_is_named_with_those_known(tmp_path):
  path = tmp_path / "a.safetensors"
  variables = {"params": {"kernel": np.ones(2, np.float32)}}
  generator_files.save_generator(
    path, generator_files.GeneratorFile("diffusion", {}, variables, source_sha256="0" * 64)
  )
  with pytest.raises(ValueError, match=r"a\.safetensors.*'diffusion'.*dcgan"):
    generators.load(path)


@pytest.mark.parametrize("name", ["nowhere.safetensors", "pretrained:cats"])
def test_a_missing_file_is_named(name):
  with pytest.raises(FileNotFoundError, match=name.removeprefix("pretrained:")):
    generators.resolve(name)


@pytest.mark.parametrize(
  "name", ["no_such_module_anywhere:make", "a_users_generators:no_such_function"]
)
def test_a_dotted_name_that_leads_nowhere_is_named(name, user_module):
  with pytest.raises(ValueError, match=rf"{name}.*package\.module:function"):
    generators.resolve(name)


def test_a_users_function_must_return_a_generator(user_module):
  with pytest.raises(ValueError, match=f"{user_module}:wrong.*returned str, expected a Generator"):
    generators.resolve(f"{user_module}:wrong")


def test_a_users_generator_works_by_its_dotted_name(user_module):
  generator = generators.resolve(f"{user_module}:make")
  latents, labels = generators.sample_at(generator, jax.random.key(0), jnp.arange(64))
  images = generator.generate(generator.variables, latents, labels)
  assert images.shape == (64, 4, 4, 3)
  assert set(np.asarray(labels)) == set(range(5))


def test_a_latent_does_not_depend_on_the_batch_it_is_drawn_in(user_module):
  generator, key = generators.resolve(f"{user_module}:make"), jax.random.key(1)
  all_latents, all_labels = generators.sample_at(generator, key, jnp.arange(10))
  latents, labels = generators.sample_at(generator, key, jnp.array([7, 2]))
  np.testing.assert_array_equal(latents, all_latents[jnp.array([7, 2])])
  np.testing.assert_array_equal(labels, all_labels[jnp.array([7, 2])])
  assert len(np.unique(np.asarray(all_latents))) == all_latents.size
  other, _ = generators.sample_at(generator, jax.random.key(2), jnp.arange(10))
  assert not np.any(np.asarray(other) == np.asarray(all_latents))


def test_latents_are_standard_normal(faces):
  latents, labels = generators.sample_at(faces, jax.random.key(0), jnp.arange(500))
  assert latents.shape == (500, 100) and latents.dtype == jnp.float32
  assert abs(latents.mean()) < 0.02 and abs(latents.std() - 1) < 0.02
  assert not np.any(labels)
