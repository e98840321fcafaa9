"""Fixtures of complete runs, which are made once."""

import contextlib
import gc
import pathlib
import shutil

import jax
import jaxtyping
import pytest

# Before anything imports the package: the hook checks its signatures, with shapes, at every call.
jaxtyping.install_import_hook(("unseg_jax", "checkpoints_convert"), "signatures.check")

from whole_runs import ROOT, make_config  # noqa: E402

from checkpoints_convert.convert import convert_file  # noqa: E402
from unseg_jax import pipeline  # noqa: E402
from unseg_jax.storage import places  # noqa: E402

# Combining arrays of different rank must be explicit.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
  """Frees compiled programs and copies after each module, which would take gigabytes."""
  yield
  places.release()
  jax.clear_caches()
  gc.collect()


@pytest.fixture(scope="session")
def generator(tmp_path_factory):
  """A converted generator with random weights."""
  output = tmp_path_factory.mktemp("generator") / "random.safetensors"
  convert_file(ROOT / "tests" / "golden" / "dcgan.pth", output, "dcgan")
  return output


def pytest_addoption(parser):
  parser.addoption(
    "--kills", type=int, default=20, help="how often a whole run is killed at a random moment"
  )


@pytest.fixture(scope="session")
def compiled_folder(tmp_path_factory):
  """A cache of compiled programs that complete runs share, including those in other processes."""
  return tmp_path_factory.mktemp("compiled")


@contextlib.contextmanager
def quick_compilation(folder):
  """Compiles each program once for all runs, without slow optimisations."""
  during = {
    "jax_compilation_cache_dir": str(folder),
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_disable_most_optimizations": True,
  }
  after = {name: jax.config.values[name] for name in during}  # Contexts may be nested.
  with pytest.MonkeyPatch.context() as patch:
    for name, value in during.items():
      patch.setenv(name.upper(), str(value))
      jax.config.update(name, value)
    yield
    for name, value in after.items():
      jax.config.update(name, value)


@pytest.fixture(scope="module")
def compile_quickly(compiled_folder):
  """Makes all complete runs of a module compile quickly, and to the same programs."""
  with quick_compilation(compiled_folder):
    yield


@pytest.fixture
def config(generator):
  """The tiny config with that generator."""
  return make_config(generator)


@pytest.fixture(scope="session")
def finished(generator, compiled_folder, tmp_path_factory):
  """The workdir of an undisturbed complete run; tests must not change it."""
  folder = tmp_path_factory.mktemp("finished")
  with quick_compilation(compiled_folder):
    pipeline.run(make_config(generator), folder, tuple(pipeline.STAGES))
  return folder


@pytest.fixture
def copied(finished, tmp_path):
  """A copy of a finished workdir for one test."""
  return pathlib.Path(shutil.copytree(finished, tmp_path / "copied"))
