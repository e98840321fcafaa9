"""DCGAN's checkpoints."""

import re

import jax
import numpy as np
import pytest
from small_checkpoints import small_checkpoint
from whole_runs import GOLDEN, ROOT

from checkpoints_convert import dcgan
from unseg_jax import generators
from unseg_jax.artifacts import generator_files
from unseg_jax.storage import whole_files

PRETRAINED = ROOT / "unseg_jax" / "pretrained"


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {f"main.{i}.weight": None for i in (0, 3, 4, 9)},
      "missing keys: main.0.weight, main.3.weight, main.9.weight and 1 more",
    ),
    ({"extra": np.ones(2)}, "unexpected keys: extra"),
    (
      {"main.0.weight": np.ones((20, 64, 3, 3))},
      "main.0.weight has shape [20, 64, 3, 3], expected [20, 64, 4, 4]",
    ),
    (
      {"main.1.bias": np.ones(63), "main.4.bias": np.ones(31)},
      "main.1.bias has shape [63], expected [64], main.4.bias has shape [31], expected [32]",
    ),
    ({"main.0.weight": np.ones((20, 65, 4, 4))}, "has shape [20, 65, 4, 4], expected [20, 64, 4"),
    ({"main.7.running_mean": np.full(16, np.nan)}, "main.7.running_mean holds NaN or infinity"),
    ({"main.7.running_var": np.full(16, -2.0)}, "main.7.running_var holds -2.0, expected varian"),
    ({"main.1.bias": np.ones(64, int)}, "main.1.bias is of type int64, expected an array of flo"),
    ({"main.1.bias": "text"}, "main.1.bias is of type str, expected an array"),
  ],
)
def test_a_checkpoint_that_is_not_quite_a_dcgan_is_refused(changes, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    dcgan.convert({"netG_state_dict": small_checkpoint(**changes)}, {})


def test_batch_norm_counters_may_be_missing():
  counters = {f"main.{i}.num_batches_tracked": None for i in (1, 4, 7, 10)}
  _, config, _ = dcgan.convert(small_checkpoint(**counters), {})
  assert config == {"latent_size": 20, "widths": [64, 32, 16, 8], "channels": 3}


def test_the_face_generator_that_ships_makes_upstreams_pictures():
  path = PRETRAINED / "dcgan_faces.safetensors"
  readme = (PRETRAINED / "README.md").read_text()
  assert generator_files.read_generator(path).source_sha256 in readme
  assert whole_files.sha256(path) in readme
  generator = generators.load("pretrained:dcgan_faces")
  golden = np.load(GOLDEN / "search_dcgan_faces.npz")
  with jax.default_matmul_precision("highest"):
    images = jax.jit(generator.generate)(generator.variables, golden["z"][0], None)
  assert np.abs(images - golden["image_z0"]).max() < 1e-5
