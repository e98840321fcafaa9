"""Reads PyTorch's files in both formats without executing anything."""

import argparse
import collections
import importlib
import itertools
import os
import pathlib
import pickle
import subprocess
import sys
import types
import typing

import jax
import numpy as np
import pytest
import torch
from small_checkpoints import save_lightning, small_checkpoint

from checkpoints_convert import convert, dcgan, inert, torch_reader
from unseg_jax.artifacts import generator_files


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


def modules_of_settings(monkeypatch):
  """Modules named like Lightning's and OmegaConf's, with the classes of pickled objects."""
  made = {}
  for name in (
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.nodes.AnyNode",
    "omegaconf.base.ContainerMetadata",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.utilities.parsing.AttributeDict",
  ):
    module_name, _, class_name = name.rpartition(".")
    base = dict if class_name == "AttributeDict" else object
    made[class_name] = type(class_name, (base,), {"__module__": module_name})
    for parent in itertools.accumulate(module_name.split("."), "{}.{}".format):
      if parent not in sys.modules:
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    setattr(sys.modules[module_name], class_name, made[class_name])
  return types.SimpleNamespace(**made)


def make(cls, **attributes):
  made = cls()
  vars(made).update(attributes)
  return made


def lightning_settings(modules):
  """Entries that Lightning 1.3 saves beside the weights: configs and callbacks by class."""
  metadata = make(
    modules.ContainerMetadata,
    ref_type=typing.Any,
    object_type=dict,
    flags={},
    resolver_cache=collections.defaultdict(dict, {"env": {"a": 1}}),
    element_type=type(None),
  )
  config = make(modules.DictConfig, _metadata=metadata, _parent=None)
  leaf = make(modules.AnyNode, _val=1e-3, _parent=config)
  values = make(modules.ListConfig, _content=[leaf], _parent=config)
  config._content = {"lr": leaf, "betas": values}  # Each child references its parent.
  arguments = argparse.Namespace(folder=pathlib.Path("a"), loss=np.float64(0.5))
  return {
    "hyper_parameters": config,
    "callbacks": {modules.ModelCheckpoint: {"best_model_score": torch.tensor(0.5)}},
    "args": arguments,
    "attributes": modules.AttributeDict(lr=1e-3),
    "loops": collections.deque([1, 2], maxlen=3),
  }


@pytest.mark.parametrize("is_zip", [True, False])
def test_settings_beside_the_weights_are_read_and_their_classes_not_imported(
  tmp_path, monkeypatch, is_zip
):
  path, output = tmp_path / "a.ckpt", tmp_path / "a.safetensors"
  with monkeypatch.context() as patch:
    changes = lightning_settings(modules_of_settings(patch))
    save_lightning(small_checkpoint(), path, is_zip=is_zip, **changes)
  imported = set(sys.modules)
  checkpoint = torch_reader.read(path)
  assert not {name.partition(".")[0] for name in set(sys.modules) - imported} & {
    "omegaconf",
    "pytorch_lightning",
  }
  assert isinstance(checkpoint["hyper_parameters"], inert.Setting)
  assert isinstance(checkpoint["args"], inert.Setting)
  assert checkpoint["attributes"] == {"lr": 1e-3} and checkpoint["loops"] == [1, 2]
  ((callback, state),) = checkpoint["callbacks"].items()
  assert callback.__name__.endswith(".ModelCheckpoint") and state["best_model_score"] == 0.5
  convert.convert_file(path, output, "dcgan")
  bare = dcgan.convert(small_checkpoint(), {})
  jax.tree.map(
    np.testing.assert_array_equal, generator_files.read_generator(output).variables, bare[2]
  )


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("place", ["hyper_parameters", "args", "attributes"])
def test_code_inside_of_settings_is_not_run(tmp_path, monkeypatch, place, is_zip):
  path, trace = tmp_path / "evil.ckpt", tmp_path / "trace"
  with monkeypatch.context() as patch:
    modules = modules_of_settings(patch)
    changes = lightning_settings(modules)
    if place == "attributes":
      changes[place]["trap"] = _Malicious(trace)
    else:
      vars(changes[place])["trap"] = _Malicious(trace)
    save_lightning(small_checkpoint(), path, is_zip=is_zip, **changes)
  with pytest.raises(ValueError, match=r"evil\.ckpt needs \w+\.mkdir to be executed") as error:
    torch_reader.read(path)
  assert not trace.exists() and "\n" not in str(error.value)


class _Trap:
  """A class of the project, which leaves a trace if it is constructed or filled."""

  def __new__(cls, *_):
    pathlib.Path(os.environ["TRACE"]).touch()
    return super().__new__(cls)

  def __setstate__(self, state):
    pathlib.Path(os.environ["TRACE"]).touch()


@pytest.mark.parametrize(
  "call",
  [
    (_Trap, ()),
    (eval, ("__import__('os').mkdir('trace')",)),
    (getattr, (dict, "items")),
    (subprocess.Popen, ("true",)),
    (torch.load, ("a",)),
    (importlib.import_module, ("antigravity",)),
  ],
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_only_classes_of_settings_may_be_made(tmp_path, monkeypatch, call, is_zip):
  class Caller:
    def __reduce__(self):
      return call

  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("TRACE", str(tmp_path / "trace"))
  save_lightning(small_checkpoint(), tmp_path / "a.ckpt", is_zip=is_zip, trap=Caller())
  (tmp_path / "trace").unlink(missing_ok=True)
  with pytest.raises(ValueError, match=r"a\.ckpt needs \S+ to be executed.*do not trust this"):
    torch_reader.read(tmp_path / "a.ckpt")
  assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]
  # A class that is only mentioned, such as the key of a callback's state, does nothing.
  save_lightning(small_checkpoint(), tmp_path / "a.ckpt", is_zip=is_zip, callbacks={_Trap: 1})
  assert list(torch_reader.read(tmp_path / "a.ckpt")["callbacks"].values()) == [1]
  assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_whole_module_is_refused(tmp_path, is_zip):
  path = tmp_path / "a.pth"
  torch.save({"model": torch.nn.Linear(2, 2)}, path, _use_new_zipfile_serialization=is_zip)
  with pytest.raises(
    ValueError, match=r"a\.pth needs .* to be executed.*save only `model\.state_d"
  ):
    torch_reader.read(path)


def test_what_is_mentioned_often_is_copied_once(tmp_path):
  shared = [torch.ones(2)]
  for _ in range(60):  # 2^60 tensors, if every reference were copied
    shared = [shared, shared]
  torch.save({"a": shared}, tmp_path / "a.pth")
  plain = torch_reader.read(tmp_path / "a.pth")["a"]
  assert plain[0] is plain[1]


def test_a_tensor_that_is_larger_than_its_file_is_refused(tmp_path):
  torch.save({"a": torch.ones(1).expand(10**12)}, tmp_path / "a.pth")
  with pytest.raises(ValueError, match=r"a tensor of shape \[1000000000000\] does not fit"):
    torch_reader.read(tmp_path / "a.pth")


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
