"""Converting published checkpoints, and the generator files that come of it."""

import hashlib
import os
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch

from checkpoints_convert import convert, dcgan, torch_reader, unet
from unseg_jax import checkpoints, generators

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
PRETRAINED = ROOT / "unseg_jax" / "pretrained"


def run_command(*arguments):
  return subprocess.run(
    [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120
  )


def small_generator(**changes):
  values = {
    "architecture": "dcgan",
    "config": {"latent_size": 2, "widths": [3]},
    "variables": {
      "params": {
        # A transposed view: its memory does not lie in the order of its elements.
        "project": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T, "bias": np.ones(2)},
        "gain": np.float32(0.5),
      }
    },
    "source_sha256": "0" * 64,
  }
  return checkpoints.GeneratorFile(**(values | changes))


def small_checkpoint(**changes):
  """A DCGAN's state dict as numpy arrays, its keys replaced or (None) removed as told."""
  state_dict = torch_reader.read(GOLDEN / "dcgan.pth")["netG_state_dict"]
  state_dict |= changes
  return {key: array for key, array in state_dict.items() if array is not None}


# Generator files.


def test_a_generator_file_gives_back_what_was_saved(tmp_path):
  saved = small_generator()
  checkpoints.save_generator(tmp_path / "new_folder" / "a.safetensors", saved)
  found = checkpoints.read_generator(tmp_path / "new_folder" / "a.safetensors")
  assert (found.architecture, found.config, found.source_sha256) == (
    saved.architecture,
    saved.config,
    saved.source_sha256,
  )
  assert jax.tree.structure(found.variables) == jax.tree.structure(saved.variables)
  for got, expected in zip(
    jax.tree.leaves(found.variables), jax.tree.leaves(saved.variables), strict=True
  ):
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(got, expected)


def test_the_same_generator_always_gives_the_same_bytes(tmp_path):
  # safetensors shuffles its metadata at every call: four equal files by chance are rare.
  for i in range(4):
    checkpoints.save_generator(tmp_path / str(i), small_generator())
  assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize("existed", [False, True])
def test_a_write_that_fails_midway_leaves_what_was_there(tmp_path, monkeypatch, existed):
  path = tmp_path / "a.safetensors"
  if existed:
    path.write_bytes(b"the old one")

  def fail(_):
    raise OSError("no space left on device")

  monkeypatch.setattr(os, "fsync", fail)
  with pytest.raises(OSError, match="no space left"):
    checkpoints.save_generator(path, small_generator())
  assert [p.read_bytes() for p in tmp_path.iterdir()] == ([b"the old one"] if existed else [])


@pytest.mark.parametrize(
  ("variables", "message"),
  [
    ({"params": {"bias": np.array([1, np.nan])}}, "array params/bias holds NaN or infinity"),
    ({}, "there are no arrays"),
  ],
)
def test_a_useless_generator_is_not_saved(tmp_path, variables, message):
  with pytest.raises(ValueError, match=message):
    checkpoints.save_generator(tmp_path / "a", small_generator(variables=variables))
  assert not list(tmp_path.iterdir())


def test_a_missing_generator_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"gone\.safetensors.*convert\.py"):
    checkpoints.read_generator(tmp_path / "gone.safetensors")


@pytest.mark.parametrize(
  "damage",
  [lambda data: data[:-4], lambda data: data[:20], lambda data: b"", lambda data: b"PK" * 9],
)
def test_a_truncated_or_other_file_is_refused(tmp_path, damage):
  path = tmp_path / "a.safetensors"
  checkpoints.save_generator(path, small_generator())
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(ValueError, match=r"a\.safetensors is not a whole safetensors file.*convert"):
    checkpoints.read_generator(path)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"config": None, "source_sha256": None}, "its metadata lacks config, source_sha256; convert"),
    ({"format_version": "2"}, "format_version '2', expected '1': upgrade"),
    ({"config": "{"}, "config '{' in its metadata, expected a JSON object"),
    ({"config": "[1]"}, "expected a JSON object"),
    ({"array": np.full(2, np.inf)}, "is damaged: the array array holds NaN or infinity"),
  ],
)
def test_a_safetensors_file_of_other_content_is_refused(tmp_path, changes, message):
  metadata = {"architecture": "a", "config": "{}", "format_version": "1", "source_sha256": "0"}
  array = changes.pop("array", np.ones(2))
  metadata = {k: v for k, v in (metadata | changes).items() if v is not None}
  path = tmp_path / "a.safetensors"
  path.write_bytes(safetensors.numpy.save({"array": array}, metadata))
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    checkpoints.read_generator(path)
  assert str(path) in str(error.value)


# Reading PyTorch's files.


@pytest.mark.parametrize("is_zip", [True, False])
def test_both_of_pytorchs_file_formats_are_read(tmp_path, is_zip):
  path = tmp_path / "a.pth"
  saved = {
    "state_dict": {"half": torch.tensor([1.5], dtype=torch.bfloat16), "view": torch.eye(3)[:, 1]},
    "step": 7,
  }
  torch.save(saved, path, _use_new_zipfile_serialization=is_zip)
  found = torch_reader.read(path)
  assert found["step"] == 7
  assert type(found["state_dict"]["half"]) is np.ndarray
  np.testing.assert_array_equal(found["state_dict"]["half"], [1.5])
  np.testing.assert_array_equal(found["state_dict"]["view"], [0, 1, 0])


class _Malicious:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("is_zip", [True, False])
def test_code_in_a_checkpoint_is_not_run(tmp_path, is_zip):
  path = tmp_path / "evil.pth"
  trace = tmp_path / "trace"
  checkpoint = {"netG_state_dict": {"main.0.weight": _Malicious(trace)}}
  torch.save(checkpoint, path, _use_new_zipfile_serialization=is_zip)
  with pytest.raises(ValueError, match=r"evil\.pth needs \w+\.mkdir to be executed") as error:
    torch_reader.read(path)
  assert not trace.exists()
  assert "weights_only" not in str(error.value)  # no advice to switch the protection off
  torch.load(path, weights_only=False)
  assert trace.exists()  # the trap works


@pytest.mark.parametrize("kept", [0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_truncated_checkpoint_is_refused(tmp_path, is_zip, kept):
  path = tmp_path / "a.pth"
  torch.save({"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=is_zip)
  data = path.read_bytes()
  path.write_bytes(data[: int(kept * len(data))])
  with pytest.raises(ValueError, match=r"a\.pth is truncated or not a checkpoint .*fetch it again"):
    torch_reader.read(path)


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
  path = tmp_path / "a.pth"
  with pytest.raises(FileNotFoundError, match=r"no checkpoint file at .*a\.pth"):
    torch_reader.read(path)
  path.write_text("<html>not found</html>")
  with pytest.raises(ValueError, match=r"not a checkpoint that torch\.save wrote"):
    torch_reader.read(path)
  torch.save(torch.ones(2), path)
  with pytest.raises(ValueError, match="holds a Tensor, expected a dict of tensors"):
    torch_reader.read(path)


def test_a_pytorch_that_checkpoints_can_attack_is_refused(tmp_path, monkeypatch):
  torch.save({}, tmp_path / "a.pth")
  monkeypatch.setattr(torch, "__version__", torch.torch_version.TorchVersion("2.9.1"))
  with pytest.raises(ImportError, match=r"PyTorch 2\.9\.1 can be made to execute.*2\.10 or newer"):
    torch_reader.read(tmp_path / "a.pth")


# DCGAN.


def test_the_command_converts_a_dcgan_that_makes_the_same_pictures(tmp_path):
  path = tmp_path / "small.safetensors"
  command = [
    "checkpoints_convert/convert.py",
    "--format=dcgan",
    "--source=tests/golden/dcgan.pth",
    f"--output={path}",
  ]
  result = run_command(*command)
  assert result.returncode == 0, result.stderr
  generator = generators.load(path)
  golden = np.load(GOLDEN / "dcgan.npz")
  with jax.default_matmul_precision("highest"):
    images = generator.generate(generator.variables, golden["z"], None)
  assert np.abs(images - golden["image"]).max() < 1e-5
  file = checkpoints.read_generator(path)
  assert file.source_sha256 == hashlib.sha256((GOLDEN / "dcgan.pth").read_bytes()).hexdigest()

  # Converting again, in another process, gives the same bytes; but only where told to overwrite.
  with pytest.raises(FileExistsError, match=r"small\.safetensors exists already.*--overwrite"):
    convert.convert_file("dcgan", GOLDEN / "dcgan.pth", path)
  first = path.read_bytes()
  path.write_bytes(b"")
  convert.convert_file("dcgan", GOLDEN / "dcgan.pth", path, overwrite=True)
  assert path.read_bytes() == first


def test_the_command_fails_with_one_line_and_no_output(tmp_path):
  source, output = tmp_path / "a.pth", tmp_path / "a.safetensors"
  source.write_bytes((GOLDEN / "dcgan.pth").read_bytes()[:1000])
  result = run_command(
    *("-m", "checkpoints_convert.convert", "--format=dcgan"),
    *(f"--source={source}", f"--output={output}"),
  )
  assert result.returncode == 1
  assert result.stderr.startswith(f"error: {source} is truncated")
  assert result.stderr.count("\n") == 1
  assert list(tmp_path.iterdir()) == [source]


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


@pytest.mark.parametrize("checkpoint", [{"netG_state_dict": [1]}, {"epoch": 3}, {}])
def test_a_checkpoint_of_another_project_is_refused(tmp_path, checkpoint):
  torch.save(checkpoint, tmp_path / "a.pth")
  with pytest.raises(ValueError, match=r"a\.pth is not what --format=dcgan expects.*choose the"):
    convert.convert_file("dcgan", tmp_path / "a.pth", tmp_path / "a.safetensors")
  assert not (tmp_path / "a.safetensors").exists()


def test_batch_norm_counters_may_be_missing():
  counters = {f"main.{i}.num_batches_tracked": None for i in (1, 4, 7, 10)}
  _, config, _ = dcgan.convert(small_checkpoint(**counters), {})
  assert config == {"latent_size": 20, "widths": [64, 32, 16, 8], "channels": 3}


def test_the_face_generator_that_ships_makes_upstreams_pictures():
  path = PRETRAINED / "dcgan_faces.safetensors"
  readme = (PRETRAINED / "README.md").read_text()
  assert checkpoints.read_generator(path).source_sha256 in readme
  assert checkpoints.sha256(path) in readme
  generator = generators.load("pretrained:dcgan_faces")
  golden = np.load(GOLDEN / "search_dcgan_faces.npz")
  with jax.default_matmul_precision("highest"):
    images = generator.generate(generator.variables, golden["z"][0], None)
  assert np.abs(images - golden["image_z0"]).max() < 1e-5


# U-Net.


def small_unet():
  """A state dict with the reference U-Net's keys and an eighth of its channels."""
  random = np.random.default_rng(0)
  state_dict = {}
  for entry in np.load(GOLDEN / "unet.npz")["keys"]:
    key, _, shape = entry.partition(":")
    shape = [int(size) // 8 if int(size) >= 64 else int(size) for size in shape.split(",") if size]
    state_dict[key] = random.random(shape, np.float32)
  return state_dict


def test_a_unets_arrays_all_reach_their_place():
  state_dict = small_unet()
  variables = unet.variables_from_state_dict(state_dict)
  params, stats = variables["params"], variables["batch_stats"]
  blocks = {"inc", *(f"{way}_{i}" for way in ("down", "up") for i in (1, 2, 3, 4))}
  assert params.keys() == blocks | {"out"}
  assert stats.keys() == blocks
  pairs = {
    "inc.double_conv.3.weight": params["inc"]["conv_2"]["kernel"].transpose(3, 2, 0, 1),
    "down2.maxpool_conv.1.double_conv.0.bias": params["down_2"]["conv_1"]["bias"],
    "down4.maxpool_conv.1.double_conv.1.weight": params["down_4"]["norm_1"]["scale"],
    "up1.conv.double_conv.4.bias": params["up_1"]["norm_2"]["bias"],
    "up3.conv.double_conv.4.running_mean": stats["up_3"]["norm_2"]["mean"],
    "up4.conv.double_conv.1.running_var": stats["up_4"]["norm_1"]["var"],
    "outc.conv.weight": params["out"]["kernel"].transpose(3, 2, 0, 1),
  }
  for key, array in pairs.items():
    np.testing.assert_array_equal(array, state_dict[key])
  # Nothing is lost, nothing is used twice.
  arrays = [a for key, a in state_dict.items() if not key.endswith("num_batches_tracked")]
  assert sorted(float(a.sum(dtype=np.float64)) for a in arrays) == pytest.approx(
    sorted(float(a.sum(dtype=np.float64)) for a in jax.tree.leaves(variables))
  )


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"outc.conv.bias": None}, "missing keys: outc.conv.bias"),
    ({"outc.conv.bias": np.ones(3)}, "outc.conv.bias has shape [3], expected [2]"),
    (
      {"up1.conv.double_conv.0.weight": np.ones((32, 96, 3, 3))},
      "up1.conv.double_conv.0.weight has shape [32, 96, 3, 3], expected [32, 128, 3, 3]",
    ),
  ],
)
def test_a_state_dict_that_is_not_quite_a_unet_is_refused(changes, message):
  state_dict = {k: a for k, a in (small_unet() | changes).items() if a is not None}
  with pytest.raises(ValueError, match=re.escape(message)):
    unet.variables_from_state_dict(state_dict)
