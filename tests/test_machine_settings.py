"""Environment settings of JAX and Python change no result and cause no traceback."""

import jax
import numpy as np
import pytest
from whole_runs import assert_same_result, run_each, run_main

from unseg_jax import pipeline
from unseg_jax.direction import directions
from unseg_jax.generators import base
from unseg_jax.runtime import parallel
from unseg_jax.segmentation import augmentation, copy_paste
from unseg_jax.storage import whole_files

# Commands as typed, without `python`.
COMMANDS = {
  "-m unseg_jax.main": ["--config=tests/tiny_config.py", "--workdir=FOLDER/run"],
  "-m unseg_jax.predict": ["--input=unseg_jax/pretrained/example", "--output=FOLDER/made"],
  "-m unseg_jax.report": ["FOLDER/run"],
  "-m unseg_jax.demo": [],
  "-m unseg_jax.export": ["--output=FOLDER/segmenter.onnx"],
  "checkpoints_convert/convert.py": [
    "--format=dcgan",
    "--source=tests/golden/dcgan.pth",
    "--output=FOLDER/made",
  ],
  "benchmarks/evaluate.py": [],
  "benchmarks/generate.py": [],
  "-m on_device": ["rates", "FOLDER/rows", "9e9"],
}


@pytest.mark.parametrize(
  "settings",
  [
    {"JAX_ENABLE_X64": "1"},
    {
      "JAX_DEBUG_NANS": "1",
      "JAX_NUMPY_RANK_PROMOTION": "raise",
      # ml_collections loads the config file in this way.
      "PYTHONWARNINGS": "error,ignore:the load_module() method:DeprecationWarning",
    },
  ],
  ids=["64 bits", "alarms"],
)
def test_a_run_leaves_the_same(settings, generator, finished, tmp_path, compile_quickly):
  run = run_main(f"--workdir={tmp_path}", f"--config.generator={generator}", **settings)
  assert run.returncode == 0, run.stderr
  assert_same_result(tmp_path, finished)
  for name in ("metrics.json", "search/history.json", "generate/filters.json"):
    assert whole_files.read_json(tmp_path / name) == whole_files.read_json(finished / name)


@pytest.mark.slow
def test_a_run_leaks_no_tracer(config, tmp_path, compile_quickly):
  # While JAX checks for leaks, nothing that was traced is reused, so calls are few.
  config.search.update({"steps": 1, "save_every": 1})
  config.generate.num_images.update({"train": 8, "validation": 4, "test": 4})
  config.train.update({"steps": 1, "checkpoint_every": 1})
  with jax.checking_leaks():
    pipeline.run(config, tmp_path, list(pipeline.STAGES))
  assert (tmp_path / "report.html").exists()


DRAWS = {
  "latents": lambda key: base.normal_latents((6,))(key, 4),
  "direction": lambda key: directions.initial(key, 2, (6,)),
  "radii": lambda key: directions.sample_radii(key, (6,)),
  "augmentation": lambda key: augmentation.augment(key, IMAGE, IMAGE[..., 0] > 0),
  **{
    kind: lambda key, kind=kind: copy_paste.replace(
      key, IMAGE, IMAGE[..., 0] > 0, (IMAGE[::-1], IMAGE[..., 1] > 0), [kind]
    )
    for kind in copy_paste.KINDS
  },
}
IMAGE = np.random.default_rng(0).uniform(-1, 1, (32, 32, 3)).astype(np.float32)


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_the_same_in_64_bits(name):
  key = jax.random.key(5)
  draw = jax.jit(DRAWS[name])
  expected = draw(key)
  with jax.enable_x64(True):
    drawn = draw(key)
  for ours, wanted in zip(jax.tree.leaves(drawn), jax.tree.leaves(expected), strict=True):
    assert ours.dtype == wanted.dtype
    np.testing.assert_allclose(ours, wanted, atol=1e-6)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there are other devices")
def test_devices_that_are_not_there_are_named_with_those_that_are(tmp_path):
  platforms = ("cuda", "gpu", "tpu", "nonsense")
  cases = [("-m unseg_jax.main", COMMANDS["-m unseg_jax.main"], name) for name in platforms]
  cases += [(command, arguments, "cuda") for command, arguments in COMMANDS.items()]
  for (command, _, platform), (_, shown) in zip(cases, run_each(cases, tmp_path), strict=True):
    lines = shown.splitlines()
    # The log of a benchmark's part holds a traceback, and its last line is the reason.
    shown = lines[-1:] if command == "-m on_device" else lines
    assert len(shown) == 1, (command, lines)
    assert f"JAX_PLATFORMS={platform}: " in shown[0] and "JAX finds cpu here:" in shown[0]
  assert not (tmp_path / "run").exists() and not (tmp_path / "made").exists()


def test_devices_that_are_there_pass(monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", jax.default_backend())
  parallel.check_devices()
