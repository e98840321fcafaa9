"""Every architecture runs through all stages, from checkpoint to metrics."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_config
from whole_runs import GOLDEN

from checkpoints_convert.convert import convert_file
from unseg_jax import generators, pipeline
from unseg_jax.storage import whole_files

# Golden checkpoint -> its format, and settings that its arrays do not determine.
PUBLISHED = {
  "biggan_deep": ("biggan_deep", ("layers", "eps")),
  "biggan": ("biggan", ("BN_eps", "SN_eps")),
  "selfcond": ("selfcond", ()),
  "stylegan2": ("stylegan2", ()),
  "stylegan2_rosinality": ("rosinality", ()),
  "cips_skip": ("cips", ()),
  "studiogan_new_sagan": ("studiogan", ()),
  "stylegan3_t": ("stylegan3", ()),
  "stylegan3_r": ("stylegan3", ()),
}


@pytest.fixture(scope="module", autouse=True)
def compile_quickly():
  """Skips compiler optimisation, because compilation dominates these short runs."""
  jax.config.update("jax_disable_most_optimizations", True)
  yield
  jax.config.update("jax_disable_most_optimizations", False)


# Architectures that another one covers.
ALSO = ("stylegan2_rosinality", "studiogan_new_sagan", "stylegan3_t", "biggan", "cips_skip")
EVERY = [pytest.param(x, marks=pytest.mark.slow) if x in ALSO else x for x in PUBLISHED]


@pytest.fixture(scope="module", params=EVERY)
def converted(request, tmp_path_factory):
  """A converted file of each network."""
  format_name, names = PUBLISHED[request.param]
  output = tmp_path_factory.mktemp("converted") / f"{request.param}.safetensors"
  upstream = json.loads(str(np.load(GOLDEN / f"{request.param}.npz")["config"]))
  settings = {name: upstream[name] for name in names}
  convert_file(GOLDEN / f"{request.param}.pth", output, format_name, settings=settings)
  return output


def test_the_whole_method_runs(converted, tmp_path):
  config = tiny_config.get_config()
  config.generator = str(converted)
  config.search.steps = 2
  config.search.batch_size = 8
  config.search.microbatch = 1
  config.generate.num_images.train = 8
  config.generate.shard_candidates = 8
  config.train.steps = 2
  pipeline.run(config, tmp_path, ("search", "generate", "train", "evaluate"))
  direction = np.load(tmp_path / "search" / "direction.npy")
  shape = generators.load(converted).latent_shape
  assert direction.shape == (1, *shape)
  np.testing.assert_allclose(np.linalg.norm(direction, axis=1), np.ones((1, *shape[1:])), rtol=1e-4)
  scores = whole_files.read_json(tmp_path / "metrics.json")["synthetic"]
  assert {"accuracy", "iou", "f_beta", "f_max", "background_iou", "miou"} == set(scores)


def test_gradients_reach_every_latent_and_are_finite(converted):
  generator = generators.load(converted)
  latents, labels = generators.sample_at(generator, jax.random.key(0), jnp.arange(2))

  @jax.jit
  def gradient(variables, latents):
    return jax.grad(lambda x: jnp.square(generator.generate(variables, x, labels)).sum())(latents)

  gradients = np.asarray(gradient(generator.variables, latents))
  assert gradients.shape == latents.shape
  assert np.isfinite(gradients).all()
  assert (np.abs(gradients).reshape(2, -1).max(axis=1) > 0).all()


def test_the_readmes_own_generator_plugs_in(tmp_path, monkeypatch):
  readme = (GOLDEN.parent.parent / "README.md").read_text()
  code = readme.partition("Save this as `my_gan.py`:")[2].partition("```python\n")[2]
  code = code.partition("```")[0]
  (tmp_path / "my_gan.py").write_text(code)
  monkeypatch.syspath_prepend(tmp_path)
  generator = generators.resolve("my_gan:make")
  latents, labels = generators.sample_at(generator, jax.random.key(0), jnp.arange(2))
  images = jax.jit(generator.generate)(generator.variables, latents, labels)
  assert images.shape == (2, 64, 64, 3)
  assert float(jnp.ptp(images)) > 0
