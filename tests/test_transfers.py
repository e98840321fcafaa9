"""No stage makes implicit transfers between host and devices, on any thread."""

import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from whole_runs import assert_same_weights, last_state, records

from unseg_jax import generators, pipeline, predict
from unseg_jax.artifacts import stage_records
from unseg_jax.storage import whole_files

pytestmark = pytest.mark.usefixtures("compile_quickly")


@pytest.fixture
def guarded():
  """Forbids implicit transfers on every thread, unlike the context manager."""
  jax.config.update("jax_transfer_guard", "disallow")
  yield
  jax.config.update("jax_transfer_guard", "allow")


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
  """Returns images of two sizes."""
  folder = tmp_path_factory.mktemp("photographs")
  random = np.random.default_rng(0)
  for number, size in enumerate(((48, 72), (64, 64), (48, 72))):
    Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{number}.png")
  return folder


def test_the_guard_stops_what_crosses_unasked(guarded):
  double = jax.jit(lambda x: 2 * x)
  with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
    double(np.ones(3, np.float32))
  assert double(jax.device_put(np.ones(3, np.float32))).shape == (3,)


@pytest.mark.parametrize("stage", ["search", "generate", "train", "adapt", "evaluate", "report"])
def test_a_stage_is_made_anew(stage, copied, finished, config, photographs, guarded):
  shutil.rmtree(copied / stage, ignore_errors=True)  # A run without adaptation lacks its folder.
  if stage == "adapt":
    config.adapt.images = str(photographs)
    config.adapt.update({"rounds": 1, "steps": 2, "confidence": 0.0})
  pipeline.run(config, copied, (stage,))
  assert stage_records.has_complete_stage(copied / stage)
  if stage == "search":
    made, expected = (np.load(run / stage / "direction.npy") for run in (copied, finished))
    np.testing.assert_array_equal(made, expected)
  if stage == "generate":
    assert records(copied, "train") == records(finished, "train")
  if stage == "train":
    assert_same_weights(last_state(copied)[1], last_state(finished)[1])


def test_training_on_pairs_made_on_the_fly(finished, config, tmp_path, guarded):
  shutil.copytree(finished / "search", tmp_path / "search")
  config.generate.num_images.train = 0
  config.train.steps = 4
  pipeline.run(config, tmp_path, ("generate", "train"))
  assert last_state(tmp_path)[0] == 4


def test_two_directions_restarts_bfloat16_and_latents_from_a_file(
  generator, config, tmp_path, guarded
):
  config.search.update({"directions": 2, "restarts": 2, "steps": 2, "dtype": "bfloat16"})
  config.generate.update({"dtype": "bfloat16", "latent_noise": 0.1})
  config.generate.latents = str(tmp_path / "latents.npy")
  shape = (320, *generators.load(generator).latent_shape)
  np.save(tmp_path / "latents.npy", np.random.default_rng(0).normal(size=shape).astype(np.float32))
  pipeline.run(config, tmp_path / "run", ("search", "generate"))
  assert len(whole_files.read_json(tmp_path / "run" / "search" / "restarts.json")) == 2


@pytest.mark.parametrize("average", [False, True])
def test_predicting(average, finished, photographs, tmp_path, guarded):
  output = tmp_path / "segmented"
  assert predict.predict(str(finished), str(photographs), str(output), False, average=average) == 0
  assert len(list(output.glob("*_mask.png"))) == 3
