"""Errors that would appear late are raised before any work: on these devices, at these shapes."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny_generator import tiny_generator
from whole_runs import ROOT, contents, run_main

from unseg_jax import experiment, generators, pipeline, rehearsal
from unseg_jax.runtime import parallel, progress
from unseg_jax.stages import STAGES
from unseg_jax.synthesis import records

pytestmark = pytest.mark.usefixtures("compile_quickly")


@pytest.fixture
def refused(tmp_path, monkeypatch):
  """Runs a config that must be refused before any work and must leave no files."""
  monkeypatch.setattr(progress, "bar", lambda *_, **__: pytest.fail("work was done"))

  @contextlib.contextmanager
  def refused(config, error, match, stages=tuple(STAGES)):
    with pytest.raises(error, match=match) as caught:
      pipeline.run(config, tmp_path / "run", stages)
    assert not (tmp_path / "run").exists()
    yield caught.value

  return refused


@pytest.mark.parametrize(
  ("section", "settings", "match"),
  [
    ("train", {"batch_size": 100}, r"config\.train\.batch_size=100 .* 8 devices.*multiple of 8"),
    ("train", {"batch_size": 0}, r"config\.train\.batch_size=0 "),
    ("search", {"batch_size": 20}, r"config\.search\.batch_size=20 .* 8 devices"),
    ("search", {"batch_size": 32, "microbatch": 3}, r"microbatch=3 does not divide.*4 images"),
  ],
)
def test_a_batch_that_does_not_split_over_the_devices(
  refused, config, monkeypatch, section, settings, match
):
  monkeypatch.setattr(parallel, "device_count", lambda: 8)
  config.search.batch_size, config.train.batch_size = 8, 8
  config[section].update(settings)
  with refused(config, ValueError, match):
    pass


@pytest.mark.parametrize(
  ("section", "settings", "match"),
  [
    ("train", {"features": (4,) * 7}, r"config\.train\.features=\(4, .*7 levels.*at most 6"),
    ("train", {"features": (4,)}, r"config\.train\.features=\(4,\): expected 2 levels"),
    ("train", {"features": (4,) * 5, "image_size": 8}, r"image_size=8: expected at least 16 pix"),
    ("train", {"checkpoint_every": 0}, r"config\.train\.checkpoint_every=0: expected at least 1"),
    ("train", {"log_every": 0}, r"config\.train\.log_every=0"),
    ("search", {"save_every": 0}, r"config\.search\.save_every=0"),
    ("search", {"microbatch": -1}, r"config\.search\.microbatch=-1: expected at least 0"),
    ("generate", {"chunk": 0}, r"config\.generate\.chunk=0: expected at least 1"),
    ("generate", {"components": 1.0}, r"config\.generate\.components=1\.0: expected a fraction"),
    ("generate", {"minimum_acceptance": 0.0}, r"config\.generate\.minimum_acceptance=0\.0"),
  ],
)
def test_a_setting_that_fails_on_any_machine(refused, config, section, settings, match):
  config[section].update(settings)
  with refused(config, ValueError, match):
    pass


def test_a_file_of_latents_that_is_missing_or_of_another_generator(refused, config, tmp_path):
  config.generate.latents = str(tmp_path / "latents.npy")
  with refused(config, FileNotFoundError, r"config\.generate\.latents="):
    np.save(config.generate.latents, np.zeros((4, 3), np.float32))
  with refused(config, ValueError, r"float32 \[4, 3\]; expected floating-point latents \[n, 20\]"):
    pass


WRONG = {
  "shape": (
    lambda images: images[:, ::2],
    r"generate of 2 latents returned float32 \[2, 4, 8, 3\]",
  ),
  "type": (lambda images: images.astype(jnp.bfloat16), r"returned bfloat16 .* expected float32"),
  "pytree": (lambda images: {"images": images}, r"returned dict, expected float32 \[2, 8, 8, 3\]"),
}


def own_gan(change="", prior=(6,)):
  """A user's own function whose generator contradicts its declaration."""
  tiny = tiny_generator()

  def generate(variables, latents, labels):
    images = tiny.generate(variables, latents, labels)
    return WRONG[change][0](images) if change else images

  sample = generators.normal_latents(tuple(prior))
  return dataclasses.replace(tiny, generate=generate, sample_latents=sample)


@pytest.mark.parametrize("change", WRONG)
def test_a_gan_of_ones_own_that_returns_something_else(refused, config, change):
  config.generator, config.generator_options.change = f"{__name__}:own_gan", change
  with refused(config, ValueError, WRONG[change][1]) as error:
    assert f"config.generator={__name__}:own_gan" in str(error)


def test_a_gan_of_ones_own_whose_prior_has_another_shape(refused, config):
  config.generator, config.generator_options.prior = f"{__name__}:own_gan", (5,)
  with refused(config, ValueError, r"sample_latents of 2 .*float32 \[2, 5\], expected .*\[2, 6\]"):
    pass


def broken_gan():
  """A user's own function whose generator fails with an error of JAX."""
  return dataclasses.replace(
    tiny_generator(), generate=lambda variables, latents, labels: latents + jnp.zeros((2, 7))
  )


def test_an_error_inside_a_gan_of_ones_own_keeps_its_traceback(refused, config):
  config.generator = f"{__name__}:broken_gan"
  with refused(config, TypeError, "incompatible shapes") as error:
    assert any("broken_gan" in note for note in error.__notes__)


def test_stages_that_are_complete_are_not_rehearsed(copied, config, monkeypatch):
  before = contents(copied)
  monkeypatch.setattr(rehearsal, "programs", lambda *_: pytest.fail("it was traced"))
  monkeypatch.setattr(parallel, "device_count", lambda: 3)
  pipeline.run(config, copied, STAGES)
  after = contents(copied)
  assert {path for path in before if before[path] != after.get(path)} <= {
    path for path in before if path.name == "config.json"
  }


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"generate.num_images.train": 0, "search.directions": 2, "search.restarts": 2},
    {"search.microbatch": 1, "search.dtype": "bfloat16", "generate.dtype": "bfloat16"},
  ],
)
def test_every_program_is_traced_at_its_real_shapes(
  config, tmp_path, monkeypatch, devices, changes
):
  monkeypatch.setattr(parallel, "device_count", lambda: devices)
  config.update_from_flattened_dict(changes)
  this = experiment.open_run(config, tmp_path / "run")
  programs = {
    program.name: program for stage in STAGES for program in rehearsal.programs(this, stage)
  }
  results = {name: program.trace() for name, program in programs.items()}
  state, losses, norms = results["search step"]
  directions = (config.search.restarts, config.search.directions)
  assert state.directions.shape == (*directions, 20)
  assert {loss.shape for loss in losses.values()} == {directions}
  assert norms.shape == (config.search.restarts,)
  assert results["candidates"]["image"].shape == (config.generate.chunk, 64, 64, 3)
  assert results["pictures of the direction"].shape[1:] == (64, 64)
  own = config.train.batch_size // devices
  assert programs["training step"].arguments["batch"]["image"].shape == (own, 64, 64, 3)
  _, loss, norm = results["training step"]
  assert (loss.shape, loss.dtype) == (norm.shape, norm.dtype) == ((), np.float32)
  assert results["segmenter"].shape == (8, 64, 64)
  assert ("batches on the fly" in results) == (not config.generate.num_images.train)


def test_the_memory_of_a_program_is_that_of_its_arguments_at_least(config, tmp_path):
  config.train.features, config.train.copy_paste.share = (2, 4), 0.0
  this = experiment.open_run(config, tmp_path / "run")
  step = next(program for program in rehearsal.programs(this, "train"))
  sizes = step.memory()
  assert sizes["batch"] >= 8 * 64 * 64 * 4
  weights = sum(x.size * 4 for x in jax.tree.leaves(step.arguments["weights"]["params"]))
  assert 2 * weights < sizes["optimizer"] < 2 * weights + 100
  assert step.compiled_memory() > sum(sizes.values())


@pytest.mark.parametrize("side", [64, 128, 256])
def test_a_photograph_takes_about_the_typical_bytes(side):
  path = ROOT / "unseg_jax" / "pretrained" / "example" / "astronaut_head.png"
  with Image.open(path) as picture:
    image = np.asarray(picture.convert("RGB").resize((side, side)))
  taken = len(records.encode(image, image[..., 0] > 128, 0, 0))
  assert taken / 2.5 < records.typical_bytes(side) < taken * 2.5


def test_on_eight_devices_by_the_command(generator, tmp_path):
  done = run_main(
    f"--config.generator={generator}",
    f"--workdir={tmp_path / 'run'}",
    "--config.train.batch_size=100",
    XLA_FLAGS="--xla_force_host_platform_device_count=8",
  )
  assert done.returncode == 1
  assert "config.train.batch_size=100 does not split over 8 devices" in done.stderr
  assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()
