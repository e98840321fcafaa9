"""Published U-Nets become segmenters, from bare state dicts and from Lightning checkpoints."""

import pathlib

import golden_unet
import jax
import jaxtyping
import numpy as np
import pytest
import torch
from golden_unet import GOLDEN
from whole_runs import run_command

from checkpoints_convert.convert import convert_file
from unseg_jax.artifacts import generator_files
from unseg_jax.inference.segmenter import Segmenter

ROOT = pathlib.Path(__file__).parents[2]


def make_state_dict(divisor=1):
  """Upstream's state dict as tensors, with fewer channels."""
  arrays = golden_unet.make_state_dict(divisor)
  return {key: torch.as_tensor(array) for key, array in arrays.items()}


@pytest.fixture(scope="module")
def state_dict():
  return make_state_dict(divisor=16)


def lightning(state_dict, prefix="net."):
  """A PyTorch Lightning checkpoint with optimiser state and hyper-parameters."""
  return {
    "epoch": 3,
    "global_step": 18000,
    "pytorch-lightning_version": "1.1.2",
    "state_dict": {f"{prefix}{key}": array for key, array in state_dict.items()},
    "optimizer_states": [{"state": {0: {"step": 1, "exp_avg": torch.ones(2)}}, "param_groups": []}],
    "lr_schedulers": [],
    "hyper_parameters": {"lr": 1e-3, "name": "unet"},
  }


def converted(checkpoint, tmp_path, name="unet", **settings):
  torch.save(checkpoint, tmp_path / f"{name}.pth")
  output = tmp_path / f"{name}.safetensors"
  convert_file(tmp_path / f"{name}.pth", output, "unet", settings=settings)
  return output


def test_the_converted_published_network_gives_the_originals_logits(tmp_path, monkeypatch):
  output = converted(make_state_dict(), tmp_path)
  file = generator_files.read_generator(output)
  assert file.architecture == "unet"
  assert file.config == {"widths": [64, 128, 256, 512, 512], "image_size": 128}
  segmenter = Segmenter.restore(output)
  monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
  for size in ("64x64", "100x75"):
    # The golden images are floats, not 8-bit as a segmenter's, so its scaling is undone.
    image = 127.5 * (GOLDEN[f"image_{size}"][None] + 1)
    height, width = image.shape[1:3]
    padded = [(0, 0), (0, -height % 32), (0, -width % 32), (0, 0)]
    with jax.default_matmul_precision("highest"):
      logits = segmenter.logits(
        segmenter.variables, np.pad(image, padded), np.array([(height, width)])
      )
    expected = GOLDEN[f"logits_{size}"][..., 1] - GOLDEN[f"logits_{size}"][..., 0]
    # Class 0 is the background, so the difference is foreground minus background.
    np.testing.assert_allclose(logits[0, :height, :width], expected, atol=2e-4, rtol=0)


def test_the_originals_lightning_checkpoint_gives_the_same_segmenter(state_dict, tmp_path):
  bare = generator_files.read_generator(converted(state_dict, tmp_path, "bare"))
  assert bare.config["widths"] == [4, 8, 16, 32, 32]
  for prefix in ("net.", "", "model.net."):
    output = converted(lightning(state_dict, prefix), tmp_path, "training")
    output_file = generator_files.read_generator(output)
    assert output_file.config == bare.config
    jax.tree.map(np.testing.assert_array_equal, output_file.variables, bare.variables)
    (tmp_path / "training.safetensors").unlink()


def test_the_command_makes_a_segmenter_of_the_size_in_the_config(state_dict, tmp_path):
  source, output = tmp_path / "u_net_imagenet.pth", tmp_path / "unet.safetensors"
  torch.save(state_dict, source)
  (tmp_path / "settings.json").write_text('{"image_size": 64}')
  done = run_command(
    "checkpoints_convert/convert.py",
    "--format=unet",
    f"--source={source}",
    f"--output={output}",
    f"--config={tmp_path / 'settings.json'}",
  )
  assert done.stdout.startswith(f"wrote {output}: unet ")
  # No contact sheet, because a segmenter generates no images.
  assert {path.name for path in tmp_path.iterdir()} == {
    "settings.json",
    "u_net_imagenet.pth",
    "unet.safetensors",
  }
  segmenter = Segmenter.restore(output)
  assert segmenter.image_size == 64
  image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
  probability = segmenter(image)
  assert probability.shape == (70, 90) and np.ptp(probability) > 0


@pytest.mark.parametrize("in_lightning", [False, True])
@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"up2.conv.double_conv.3.weight": None}, "missing keys: up2.conv.double_conv.3.weight"),
    ({"outc.conv.extra": torch.ones(2)}, "outc.conv.extra"),
    ({"outc.conv.bias": torch.ones(1)}, "outc.conv.bias has shape [1], expected [2]"),
  ],
)
def test_keys_that_do_not_fit_are_named(state_dict, tmp_path, changes, message, in_lightning):
  checkpoint = {k: v for k, v in (state_dict | changes).items() if v is not None}
  with pytest.raises(
    ValueError, match=r"unet\.pth cannot be converted with --format=unet"
  ) as error:
    converted(lightning(checkpoint) if in_lightning else checkpoint, tmp_path)
  assert message in str(error.value)
  assert not (tmp_path / "unet.safetensors").exists()


def test_a_checkpoint_of_another_network_is_named(state_dict, tmp_path):
  with pytest.raises(ValueError, match=r"missing keys: inc\.double_conv.*format"):
    converted({"fc.weight": torch.ones(2, 2)}, tmp_path)
  torch.save(lightning(state_dict), tmp_path / "a.ckpt")
  with pytest.raises(ValueError, match=r"it looks like --format=unet"):
    convert_file(tmp_path / "a.ckpt", tmp_path / "a.safetensors", "dcgan")


@pytest.mark.parametrize(
  ("settings", "message"),
  [({"image_sizes": 64}, "image_sizes"), ({"image_size": "64"}, "image_size='64': expected")],
)
def test_settings_that_do_not_fit_are_named(state_dict, tmp_path, settings, message):
  with pytest.raises(ValueError, match=message):
    converted(state_dict, tmp_path, **settings)
  assert not (tmp_path / "unet.safetensors").exists()
