"""NVIDIA's pickles are read without executing anything."""

import collections
import io
import os
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from whole_runs import GOLDEN

from checkpoints_convert import nvidia_reader, stylegan2, torch_reader


def reconstruct(meta):
  """A short version of `torch_utils.persistence`, which NVIDIA's code uses to open pickles."""
  exec(meta["module_src"], {})
  return meta["class_name"]


@pytest.fixture
def nvidia(monkeypatch):
  """Makes the modules that NVIDIA's pickles name importable during the test."""
  easy_dict = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
  network = type("Network", (), {"__module__": "dnnlib.tflib.network"})
  persistence = types.ModuleType("torch_utils.persistence")
  persistence._reconstruct_persistent_obj = reconstruct
  monkeypatch.setattr(reconstruct, "__module__", "torch_utils.persistence")
  monkeypatch.setattr(reconstruct, "__qualname__", "_reconstruct_persistent_obj")
  modules = {name: types.ModuleType(name) for name in ("dnnlib", "dnnlib.tflib", "torch_utils")}
  modules["dnnlib.util"] = types.ModuleType("dnnlib.util")
  modules["dnnlib.util"].EasyDict = easy_dict
  modules["dnnlib.tflib.network"] = types.ModuleType("dnnlib.tflib.network")
  modules["dnnlib.tflib.network"].Network = network
  for name, module in {**modules, "torch_utils.persistence": persistence}.items():
    monkeypatch.setitem(sys.modules, name, module)
  return types.SimpleNamespace(EasyDict=easy_dict, Network=network)


class Persistent(torch.nn.Module):
  """A module pickled like NVIDIA's: its source and its attributes."""

  source = "raise AssertionError('executed')"

  def __reduce__(self):
    state = super().__reduce__()[2]
    meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": "Generator"}
    return reconstruct, ({**meta, "state": state},), None


def make_network(arrays, easy_dict=dict):
  """A tree of modules with these arrays by dotted name, and with attributes of many kinds."""
  root = Persistent()
  root.z_dim = 32
  root._init_kwargs = easy_dict(z_dim=32, mapping_kwargs=easy_dict(num_layers=8))
  for key, array in arrays.items():
    *path, name = key.split(".")
    module = root
    for part in path:
      if part not in module._modules:
        module.add_module(part, Persistent())
      module = module._modules[part]
    tensor = torch.as_tensor(array)
    if name in ("noise_const", "resample_filter", "w_avg"):
      module.register_buffer(name, tensor)
    else:
      module.register_parameter(name, torch.nn.Parameter(tensor))
  for name, module in root.named_modules():
    if name.split(".")[-1] in ("conv0", "conv1", "torgb"):
      module.conv_clamp = 256
      module.act_gain = np.sqrt(2)
    if name.split(".")[-1].startswith("fc"):
      module.bias_gain = 0.01
      module.activation = "lrelu"
      module.register_parameter("unused", None)
  return root


def write(path, content, protocol=4):
  path.write_bytes(pickle.dumps(content, protocol=protocol))
  return path


@pytest.mark.parametrize("protocol", [3, 4])
def test_a_published_pickle_converts_like_its_state_dict(tmp_path, nvidia, protocol):
  arrays = torch_reader.read(GOLDEN / "stylegan2.pth")
  network = make_network(arrays, nvidia.EasyDict)
  content = {
    "G": make_network({"a": np.ones(1, np.float32)}),
    "D": None,
    "G_ema": network,
    "training_set_kwargs": nvidia.EasyDict(path="cats.zip", resolution=64),
    "augment_pipe": make_network({"a": np.ones(1, np.float32)}),
  }
  checkpoint = nvidia_reader.read(write(tmp_path / "cats.pkl", content, protocol))
  assert list(checkpoint["G_ema"]) == list(network.state_dict())
  assert checkpoint["G_ema"].keys() == arrays.keys()
  for key, array in arrays.items():
    assert isinstance(checkpoint["G_ema"][key], np.ndarray)
    np.testing.assert_array_equal(checkpoint["G_ema"][key], array)
  assert checkpoint["attributes"]["z_dim"] == 32
  assert checkpoint["attributes"]["mapping.fc3.bias_gain"] == 0.01
  assert checkpoint["attributes"]["synthesis.b8.conv0.act_gain"] == pytest.approx(2**0.5)

  architecture, config, variables = stylegan2.convert(checkpoint, {})
  expected = stylegan2.convert(arrays, {})
  assert (architecture, config) == expected[:2]
  found_kernel = variables["params"]["synthesis"]["block_8"]["conv_0"]["kernel"]
  expected_kernel = expected[2]["params"]["synthesis"]["block_8"]["conv_0"]["kernel"]
  np.testing.assert_array_equal(found_kernel, expected_kernel)


def test_tensors_of_every_layout_are_read(tmp_path, nvidia):
  network = Persistent()
  tensors = {
    "view": torch.arange(24.0).reshape(2, 3, 4)[:, 1:, ::2],
    "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "float_16": torch.tensor([0.5, -2], dtype=torch.half),
    "bfloat_16": torch.tensor([1.5], dtype=torch.bfloat16),
    "number": torch.tensor(7),
    "empty": torch.zeros(0, 3),
  }
  for name, tensor in tensors.items():
    network.register_buffer(name, tensor)
  network.register_buffer("transient", torch.ones(1), persistent=False)
  network.shape, network.device = torch.Size((1, 2)), torch.device("cpu")
  network.array, network.count = np.arange(3), np.int32(-5)
  network.parts = {1, 2}
  checkpoint = nvidia_reader.read(write(tmp_path / "a.pkl", {"G_ema": network}))
  assert checkpoint["G_ema"].keys() == tensors.keys()
  for name, tensor in tensors.items():
    np.testing.assert_array_equal(checkpoint["G_ema"][name], tensor.float(), strict=False)
    assert checkpoint["G_ema"][name].shape == tensor.shape
  assert checkpoint["attributes"]["count"] == -5


def test_the_source_in_a_pickle_is_not_run(tmp_path, nvidia):
  trace = tmp_path / "trace"
  network = make_network({"a": np.ones(2, np.float32)})
  network.source = f"import os; os.mkdir({str(trace)!r})"
  path = write(tmp_path / "a.pkl", {"G_ema": network})
  assert list(nvidia_reader.read(path)["G_ema"]) == ["a"]
  assert not trace.exists()
  pickle.loads(path.read_bytes())
  assert trace.exists()  # the trap works


class Call:
  """An object pickled as a function call."""

  def __init__(self, function, *arguments):
    self.function, self.arguments = function, arguments

  def __reduce__(self):
    return self.function, self.arguments


def text(value):
  return pickle.SHORT_BINUNICODE + bytes([len(value.encode())]) + value.encode()


def name(module, attribute):
  return text(module) + text(attribute) + pickle.STACK_GLOBAL


def call(function, *arguments):
  return function + pickle.MARK + b"".join(arguments) + pickle.TUPLE + pickle.REDUCE


def raw(code):
  """A pickle whose `G_ema` is the top of the stack after the code."""
  head = pickle.PROTO + b"\x04" + pickle.EMPTY_DICT + text("G_ema")
  return head + code + pickle.SETITEM + pickle.STOP


RECONSTRUCT = ("torch_utils.persistence", "_reconstruct_persistent_obj")
EMPTY_MODULE = call(
  name(*RECONSTRUCT),
  pickle.EMPTY_DICT + text("state") + pickle.EMPTY_DICT + pickle.SETITEM,
)
FORBIDDEN = "to be executed, expected only tensors.*do not trust this file"

# An ordinary unpickler would call os.mkdir(path) for each.
TRAPS = {
  "a call": lambda path: pickle.dumps({"G_ema": Call(os.mkdir, path)}),
  "eval": lambda path: pickle.dumps({"G_ema": Call(eval, f"__import__('os').mkdir({path!r})")}),
  "a call in protocol 0": lambda path: f"(cos\nmkdir\n(V{path}\ntR.".encode(),
  "an instance": lambda path: f"(V{path}\nios\nmkdir\n.".encode(),
  "an object": lambda path: b"(cos\nmkdir\nV" + path.encode() + b"\no.",
  "attributes of an allowed module": lambda path: raw(
    call(name("torch._utils", "sys.modules.__getitem__"), text("os"))
    + call(name("torch.serialization", "os.mkdir"), text(path))
  ),
  "an allowed function's attribute": lambda path: raw(
    call(name("torch.storage", "_load_from_bytes.__globals__.__class__.mro"))
    + call(name("os", "mkdir"), text(path))
  ),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_pickle_that_runs_code_is_refused(tmp_path, trap):
  trace = tmp_path / "trace"
  path = tmp_path / "a.pkl"
  path.write_bytes(TRAPS[trap](str(trace)))
  with pytest.raises(ValueError, match=rf"a\.pkl needs '[\w.]+' {FORBIDDEN}"):
    nvidia_reader.read(path)
  assert not trace.exists()


@pytest.mark.parametrize("trap", [t for t in TRAPS if "attribute" not in t])
def test_the_traps_work(tmp_path, trap):
  trace = tmp_path / "trace"
  data = TRAPS[trap](str(trace))
  try:
    pickle.loads(data)
  except pickle.UnpicklingError:
    pass  # The last opcode fails on this stack, but only after the call.
  assert trace.exists()


@pytest.mark.parametrize("is_zip", [True, False])
def test_code_in_the_file_inside_a_pickle_is_not_run(tmp_path, is_zip):
  trace, blob = tmp_path / "trace", io.BytesIO()
  torch.save(Call(os.mkdir, str(trace)), blob, _use_new_zipfile_serialization=is_zip)
  content = {"G_ema": Call(torch.storage._load_from_bytes, blob.getvalue())}
  path = write(tmp_path / "a.pkl", content)
  with pytest.raises(ValueError, match=r"needs '\w+\.mkdir' " + FORBIDDEN) as error:
    nvidia_reader.read(path)
  assert not trace.exists()
  assert "weights_only" not in str(error.value)  # no advice to switch the protection off
  pickle.loads(path.read_bytes())
  assert trace.exists()  # the trap works


STATE = pickle.EMPTY_DICT + text("function") + text("x") + pickle.SETITEM + pickle.BUILD
SLOTS = (
  pickle.NONE
  + pickle.EMPTY_DICT
  + text("__setstate__")
  + name(*RECONSTRUCT)
  + pickle.SETITEM
  + pickle.TUPLE2
  + pickle.BUILD
)


@pytest.mark.parametrize("state", [STATE, SLOTS])
@pytest.mark.parametrize(
  "target",
  [
    EMPTY_MODULE,
    name(*RECONSTRUCT),
    name("torch.storage", "_load_from_bytes"),
    name("collections", "OrderedDict"),
    name("dnnlib.util", "EasyDict") + pickle.EMPTY_TUPLE + pickle.NEWOBJ,
    pickle.EMPTY_DICT,
    name("builtins", "set"),
  ],
)
def test_a_pickle_cannot_change_what_it_is_read_with(tmp_path, target, state):
  path = tmp_path / "a.pkl"
  path.write_bytes(raw(target + state))
  before = {kind: dict(vars(kind)) for kind in (nvidia_reader._Module, nvidia_reader._Dict)}
  with pytest.raises(ValueError, match=r"a\.pkl (sets attributes|is truncated or not a pickle)"):
    nvidia_reader.read(path)
  assert before == {kind: dict(vars(kind)) for kind in before}


@pytest.mark.parametrize(
  "allowed", ["copyreg._reconstructor", "copyreg.add_extension", "builtins.getattr", "os.system"]
)
def test_only_the_few_known_names_may_stand_in_a_pickle(tmp_path, allowed):
  path = tmp_path / "a.pkl"
  path.write_bytes(raw(name(*allowed.split("."))))
  with pytest.raises(ValueError, match=f"needs '{allowed}' {FORBIDDEN}"):
    nvidia_reader.read(path)


@pytest.mark.parametrize(
  "code",
  [
    pickle.EXT1 + b"\x01",
    text("1") + pickle.BINPERSID,
    EMPTY_MODULE + pickle.EMPTY_TUPLE + pickle.REDUCE,
    name(*RECONSTRUCT) + pickle.EMPTY_TUPLE + pickle.NEWOBJ,
    call(name(*RECONSTRUCT), text("no dict")),
    call(name("torch.storage", "_load_from_bytes"), text("no bytes")),
    call(name("torch._utils", "_rebuild_parameter"), text("no tensor")),
    call(name("numpy.core.multiarray", "scalar"), text("O"), text("x")),
  ],
)
def test_other_tricks_of_pickles_are_refused(tmp_path, code):
  path = tmp_path / "a.pkl"
  path.write_bytes(raw(code))
  with pytest.raises(ValueError, match=r"a\.pkl is truncated or not a pickle of NVIDIA's networks"):
    nvidia_reader.read(path)


@pytest.mark.parametrize(
  ("offset", "shape", "strides"),
  [(0, (5,), (1,)), (1, (4,), (1,)), (-1, (1,), (1,)), (0, (2,), (-1,)), (0, (9, 9), (0, 0))],
)
def test_a_tensor_beyond_its_storage_is_refused(tmp_path, nvidia, offset, shape, strides):
  storage = torch.ones(4)._typed_storage()
  network = Persistent()
  hooks = collections.OrderedDict()
  arguments = (storage, offset, shape, strides, False, hooks)
  network.__dict__["_buffers"]["a"] = Call(torch._utils._rebuild_tensor_v2, *arguments)
  path = write(tmp_path / "a.pkl", {"G_ema": network})
  with pytest.raises(ValueError, match=r"a tensor of shape .* its storage of 4"):
    nvidia_reader.read(path)


def test_a_network_within_itself_is_refused(tmp_path, nvidia):
  network, shared = Persistent(), Persistent()
  network.a = network.b = shared
  path = write(tmp_path / "a.pkl", {"G_ema": network})
  with pytest.raises(ValueError, match=r"the module b\. occurs several times"):
    nvidia_reader.read(path)


@pytest.mark.parametrize("kept", [0, 0.001, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_pickle_is_refused(tmp_path, nvidia, kept):
  path = write(tmp_path / "a.pkl", {"G_ema": make_network({"a": np.ones(1000, np.float32)})})
  data = path.read_bytes()
  path.write_bytes(data[: int(kept * len(data))])
  with pytest.raises(ValueError, match=r"a\.pkl is truncated or not a pickle .*fetch it again"):
    nvidia_reader.read(path)


def test_files_that_hold_no_averaged_generator_are_refused(tmp_path, nvidia):
  with pytest.raises(FileNotFoundError, match=r"no checkpoint file at .*b\.pkl"):
    nvidia_reader.read(tmp_path / "b.pkl")
  network = make_network({"a": np.ones(1, np.float32)})
  for content, message in [
    ({"G": network, "D": network}, r"holds no network G_ema but 'G', 'D'"),
    ({"G_ema": {"a": 1}}, r"holds no network G_ema"),
    ([1], r"holds a list, expected a dict with G_ema"),
    ((nvidia.Network(), nvidia.Network()), r"TensorFlow release of StyleGAN.*legacy\.py"),
  ]:
    with pytest.raises(ValueError, match=rf"a\.pkl {message}|a\.pkl holds networks of a {message}"):
      nvidia_reader.read(write(tmp_path / "a.pkl", content))
  torch.save({"a": torch.ones(2)}, tmp_path / "a.pkl")
  with pytest.raises(ValueError, match=r"a\.pkl is truncated or not a pickle of NVIDIA's"):
    nvidia_reader.read(tmp_path / "a.pkl")
