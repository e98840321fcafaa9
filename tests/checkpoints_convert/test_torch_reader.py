"""Reading PyTorch's files: both formats, and nothing in them is executed."""

import argparse
import os
import pathlib
import pickle

import numpy as np
import pytest
import torch
from small_checkpoints import save_lightning, small_checkpoint

from checkpoints_convert import convert, torch_reader


@pytest.mark.parametrize("is_zip", [True, False])
def test_both_of_pytorchs_file_formats_are_read(tmp_path, is_zip):
  path = tmp_path / "a.pth"
  saved = {
    "state_dict": {"half": torch.tensor([1.5], dtype=torch.bfloat16), "view": torch.eye(3)[:, 1]},
    "step": 7,
  }
  torch.save(saved, path, _use_new_zipfile_serialization=is_zip)
  checkpoint = torch_reader.read(path)
  assert checkpoint["step"] == 7
  assert type(checkpoint["state_dict"]["half"]) is np.ndarray
  np.testing.assert_array_equal(checkpoint["state_dict"]["half"], [1.5])
  np.testing.assert_array_equal(checkpoint["state_dict"]["view"], [0, 1, 0])


class _Malicious:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (str(self.path),)


def save_zip(trap, path):
  torch.save({"netG_state_dict": {"main.0.weight": trap}}, path)


def save_legacy(trap, path):
  checkpoint = {"netG_state_dict": {"main.0.weight": trap}}
  torch.save(checkpoint, path, _use_new_zipfile_serialization=False)


def save_in_hyper_parameters(trap, path):
  save_lightning(small_checkpoint(), path, hyper_parameters={"lr": trap})


def save_in_callbacks(trap, path):
  save_lightning(small_checkpoint(), path, callbacks={"x": trap})


def save_plain_pickle(trap, path):
  path.write_bytes(pickle.dumps({"G_ema": trap}))


MALICIOUS = [
  save_zip,
  save_legacy,
  save_in_hyper_parameters,
  save_in_callbacks,
  save_plain_pickle,
]


@pytest.mark.parametrize("save", MALICIOUS[:-1])
def test_code_in_a_checkpoint_is_not_run(tmp_path, save):
  path = tmp_path / "evil.pth"
  trace = tmp_path / "trace"
  save(_Malicious(trace), path)
  with pytest.raises(ValueError, match=r"evil\.pth needs \w+\.mkdir to be executed") as error:
    torch_reader.read(path)
  assert not trace.exists()
  assert "weights_only" not in str(error.value)  # no advice to switch the protection off
  torch.load(path, weights_only=False)
  assert trace.exists()  # the trap works


@pytest.mark.parametrize("is_url", [False, True])
@pytest.mark.parametrize("save", MALICIOUS)
@pytest.mark.parametrize("format_name", ["dcgan", "stylegan2"])
def test_code_in_a_source_is_not_run(tmp_path, served, save, is_url, format_name):
  trace, output = tmp_path / "trace", tmp_path / "a.safetensors"
  save(_Malicious(trace), served.folder / "evil.pkl")
  source = f"{served.url}/evil.pkl" if is_url else served.folder / "evil.pkl"
  with pytest.raises(ValueError, match=r"evil\.pkl needs '?\w+\.mkdir'? to be executed"):
    convert.convert_file(source, output, format_name)
  assert not trace.exists() and not output.exists()


@pytest.mark.parametrize("settings", [argparse.Namespace(lr=1), pathlib.PurePosixPath("a")])
def test_types_that_only_code_can_make_are_refused_even_if_harmless(tmp_path, settings):
  path = tmp_path / "a.ckpt"
  save_lightning(small_checkpoint(), path, hyper_parameters=settings)
  with pytest.raises(ValueError, match=rf"a\.ckpt needs \S*{type(settings).__name__} to be execu"):
    torch_reader.read(path)


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
