"""Converting published checkpoints, and the generator files that come of it."""

import argparse
import functools
import hashlib
import http.server
import json
import os
import pathlib
import pickle
import re
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from checkpoints_convert import contact_sheet, convert, dcgan, torch_reader, unet
from checkpoints_convert.variants import Variant
from unseg_jax import generators
from unseg_jax.runtime import checkpoints, pictures

ROOT = pathlib.Path(__file__).resolve().parents[2]
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


@pytest.fixture
def served(tmp_path_factory, monkeypatch):
  """A web server of an empty folder; what is downloaded goes to a cache of its own."""
  folder = tmp_path_factory.mktemp("served")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
  handler = functools.partial(_QuietHandler, directory=folder)
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    server.folder, server.url = folder, f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
  def log_message(self, *_):
    pass


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


def save_lightning(arrays, path, **changes):
  """Saves a checkpoint as PyTorch Lightning does, with the network at its attribute `net`."""
  content = {
    "epoch": 3,
    "global_step": 100,
    "pytorch-lightning_version": "1.3.8",
    "state_dict": {f"net.{key}": torch.as_tensor(array) for key, array in arrays.items()},
    "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5), "monitor": "iou"}},
    "optimizer_states": [{"state": {0: {"step": 1, "exp_avg": torch.zeros(2)}}}],
    "lr_schedulers": [],
    "hparams_name": "kwargs",
    "hyper_parameters": {"lr": 1e-3, "betas": (0.9, 0.999)},
  }
  torch.save(content | changes, path)


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


# The command.


def test_the_command_converts_a_generator_that_makes_the_same_pictures(tmp_path):
  path, sheet = tmp_path / "small.safetensors", tmp_path / "small_samples.png"
  command = [
    "checkpoints_convert/convert.py",
    "--format=dcgan",
    "--source=tests/golden/dcgan.pth",
    f"--output={path}",
    "--samples=5",
  ]
  result = run_command(*command)
  assert result.returncode == 0, result.stderr
  assert f"wrote {path}: dcgan" in result.stdout and f"wrote {sheet}\n" in result.stdout
  assert sorted(tmp_path.iterdir()) == [path, sheet]
  generator = generators.load(path)
  golden = np.load(GOLDEN / "dcgan.npz")
  with jax.default_matmul_precision("highest"):
    images = jax.jit(generator.generate)(generator.variables, golden["z"], None)
  assert np.abs(images - golden["image"]).max() < 1e-5
  file = checkpoints.read_generator(path)
  assert file.source_sha256 == hashlib.sha256((GOLDEN / "dcgan.pth").read_bytes()).hexdigest()
  assert Image.open(sheet).size == (2 * 64, 3 * 64)

  # Converting again, in another process, gives the same bytes; but only where told to overwrite.
  with pytest.raises(FileExistsError, match=r"small\.safetensors exists already.*--overwrite"):
    convert.convert_file(GOLDEN / "dcgan.pth", path, "dcgan")
  first, first_sheet = path.read_bytes(), sheet.read_bytes()
  path.write_bytes(b"")
  convert.convert_file(GOLDEN / "dcgan.pth", path, "dcgan", overwrite=True)
  assert path.read_bytes() == first
  assert contact_sheet.draw(path, 5) == sheet and sheet.read_bytes() == first_sheet

  # A sheet in the way is noticed before anything is written.
  path.unlink()
  result = run_command(*command)
  assert result.returncode == 1
  assert re.fullmatch(r"error: \S+small_samples\.png exists already: .*\n", result.stderr)
  assert list(tmp_path.iterdir()) == [sheet]


def test_the_sheet_shows_samples_of_the_generator(tmp_path):
  path = tmp_path / "small.v2.safetensors"
  convert.convert_file(GOLDEN / "dcgan.pth", path, "dcgan")
  sheet = contact_sheet.draw(path, 6)
  assert sheet == tmp_path / "small.v2_samples.png"
  small = generators.load(path)
  latents, labels = generators.sample_at(small, jax.random.key(0), np.arange(6))
  images = np.asarray(jax.jit(small.generate)(small.variables, latents, labels))
  expected = pictures.grid(pictures.to_uint8(images), 2).astype(int)
  assert np.abs(np.asarray(Image.open(sheet)) - expected).max() <= 1


def test_a_sheet_that_fails_midway_leaves_none(tmp_path, monkeypatch):
  path = tmp_path / "small.safetensors"
  convert.convert_file(GOLDEN / "dcgan.pth", path, "dcgan")

  def fail(_):
    raise OSError("no space left on device")

  monkeypatch.setattr(os, "fsync", fail)
  with pytest.raises(OSError, match="no space left"):
    contact_sheet.draw(path, 1)
  assert list(tmp_path.iterdir()) == [path]


def test_the_command_fails_with_one_line_and_no_output(tmp_path):
  settings, output = tmp_path / "settings.json", tmp_path / "a.safetensors"
  settings.write_text(json.dumps({"z_dim": 33}))
  result = run_command(
    *("-m", "checkpoints_convert.convert", "--format=selfcond", "--source=tests/golden/uncond.pth"),
    *(f"--config={settings}", f"--output={output}"),
  )
  assert result.returncode == 1
  assert result.stderr.startswith(
    "error: tests/golden/uncond.pth cannot be converted with --format=selfc"
  )
  assert "fc.weight has shape [512, 32], expected [512, 33]" in result.stderr
  assert result.stderr.count("\n") == 1
  assert list(tmp_path.iterdir()) == [settings]


def test_a_truncated_source_leaves_no_output(tmp_path):
  source = tmp_path / "a.pth"
  source.write_bytes((GOLDEN / "dcgan.pth").read_bytes()[:1000])
  with pytest.raises(ValueError, match=rf"^{source} is truncated"):
    convert.convert_file(source, tmp_path / "a.safetensors", "dcgan")
  assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("{", r"a\.json is not JSON \(.*expected an object"),
    ("[1]", r"a\.json holds a list, expected"),
  ],
)
def test_settings_that_are_no_object_are_refused(tmp_path, text, message):
  (tmp_path / "a.json").write_text(text)
  with pytest.raises(ValueError, match=message):
    convert.read_settings(tmp_path / "a.json")


# What is published.


def publish(monkeypatch, **changes):
  """Adds a published checkpoint `small` to the format dcgan."""
  variant = Variant(**({"url": "http://127.0.0.1:1/none", "settings": {}} | changes))
  monkeypatch.setitem(dcgan.VARIANTS, "small", variant)
  monkeypatch.setitem(convert.VARIANT_FORMATS, "small", "dcgan")


def test_a_published_checkpoint_is_downloaded_and_converted(tmp_path, served, monkeypatch):
  data = (GOLDEN / "dcgan.pth").read_bytes()
  (served.folder / "a.pth").write_bytes(data)
  sha256 = hashlib.sha256(data).hexdigest()
  publish(monkeypatch, url=f"{served.url}/a.pth", sha256=sha256)
  file = convert.convert_file(None, tmp_path / "a.safetensors", variant="small")
  assert (file.architecture, file.source_sha256) == ("dcgan", sha256)
  # The same from a URL and from a file, and with the format's name.
  (served.folder / "a.pth").rename(served.folder / "b.pth")
  convert.convert_file(f"{served.url}/b.pth", tmp_path / "b.safetensors", "dcgan")
  convert.convert_file(GOLDEN / "dcgan.pth", tmp_path / "c.safetensors", "dcgan", "small")
  assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_a_published_checkpoint_that_was_exchanged_is_refused(tmp_path, served, monkeypatch):
  (served.folder / "a.pth").write_bytes((GOLDEN / "dcgan.pth").read_bytes())
  publish(monkeypatch, url=f"{served.url}/a.pth", sha256="0" * 64)
  with pytest.raises(ValueError, match=rf"{served.url}/a\.pth gave a file with SHA-256"):
    convert.convert_file(None, tmp_path / "a.safetensors", variant="small")
  assert not list(tmp_path.iterdir())


def test_a_downloaded_file_that_cannot_be_read_is_named_with_its_copy(tmp_path, served):
  (served.folder / "a.pth").write_text("<html>log in first</html>")
  url = f"{served.url}/a.pth"
  with pytest.raises(ValueError, match=rf"is truncated .*delete \S+_a\.pth to .* from {url}"):
    convert.convert_file(url, tmp_path / "a.safetensors", "dcgan")
  assert not list(tmp_path.iterdir())


def test_the_variants_settings_hold_unless_they_are_given(tmp_path, monkeypatch):
  publish(monkeypatch, settings={"z_dim": 20})
  seen = []
  monkeypatch.setattr(dcgan, "convert", lambda _, settings: seen.append(settings) or 1 / 0)
  for settings in (None, {"z_dim": 30}):
    with pytest.raises(ZeroDivisionError):
      convert.convert_file(GOLDEN / "dcgan.pth", tmp_path / "a", None, "small", settings)
  assert seen == [{"z_dim": 20}, {"z_dim": 30}]


@pytest.mark.parametrize(
  ("format_name", "variant", "message"),
  [
    (None, "biggan-deep-1024", r"unknown --variant=biggan-deep-1024, .*biggan-deep-256, .*uncondg"),
    ("dcgan", "selfcondgan-imagenet", r"is of the format selfcond, but --format=dcgan .*leave"),
    (None, None, r"expected --format with one of biggan, biggan_deep, dcgan, .* --variant=NAME"),
    ("dcgan", None, r"expected --source=FILE_OR_URL, or --variant=NAME"),
    ("tensorflow", None, r"the format is tensorflow, expected --format with one of"),
  ],
)
def test_a_format_or_variant_that_does_not_fit_is_named(tmp_path, format_name, variant, message):
  with pytest.raises(ValueError, match=message):
    convert.convert_file(None, tmp_path / "a", format_name, variant)


def test_every_published_checkpoint_has_a_name_of_its_own_and_a_url():
  assert len(convert.VARIANT_FORMATS) == sum(len(m.VARIANTS) for m in convert.FORMATS.values())
  for name, format_name in convert.VARIANT_FORMATS.items():
    variant = convert.FORMATS[format_name].VARIANTS[name]
    assert re.fullmatch(r"https?://\S+", variant.url)
    json.dumps(dict(variant.settings))


# The wrong format.

GOLDEN_FORMATS = {
  "biggan": "biggan",
  "biggan_deep": "biggan_deep",
  "dcgan": "dcgan",
  "selfcond": "selfcond",
  "studiogan_sngan": "studiogan",
  "stylegan2": "stylegan2",
  "uncond": "selfcond",
}


@pytest.mark.parametrize("name", GOLDEN_FORMATS)
def test_a_checkpoint_of_another_project_is_recognised(tmp_path, name):
  for format_name in set(convert.FORMATS) - {GOLDEN_FORMATS[name]}:
    with pytest.raises(ValueError) as error:
      convert.convert_file(GOLDEN / f"{name}.pth", tmp_path / "a.safetensors", format_name)
    assert str(error.value).endswith(f"; it looks like --format={GOLDEN_FORMATS[name]}")
    assert f"{name}.pth cannot be converted with --format={format_name}:" in str(error.value)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("checkpoint", [{"netG_state_dict": [1]}, {"epoch": 3}, {}])
def test_a_checkpoint_of_an_unknown_project_is_refused(tmp_path, checkpoint):
  torch.save(checkpoint, tmp_path / "a.pth")
  with pytest.raises(
    ValueError, match=r"a\.pth cannot be converted with --format=dcgan: .*; choose the"
  ):
    convert.convert_file(tmp_path / "a.pth", tmp_path / "a.safetensors", "dcgan")
  assert not (tmp_path / "a.safetensors").exists()


# Training checkpoints.


def test_a_lightning_checkpoint_is_converted(tmp_path):
  other = {"discriminator.0.weight": torch.ones(2), "main.0.weight.ema": torch.ones(1)}
  networks = {f"net.{key}": torch.as_tensor(a) for key, a in small_checkpoint().items()}
  for i, arrays in enumerate((small_checkpoint(), None)):
    changes = {} if arrays else {"state_dict": networks | other}
    save_lightning(arrays or {}, tmp_path / "a.ckpt", **changes)
    output = tmp_path / f"{i}.safetensors"
    convert.convert_file(tmp_path / "a.ckpt", output, "dcgan")
    expected = dcgan.convert(small_checkpoint(), {})
    found = checkpoints.read_generator(output)
    assert found.config == expected[1]
    jax.tree.map(np.testing.assert_array_equal, found.variables, expected[2])


def test_a_lightning_checkpoint_without_a_prefix_is_converted(tmp_path):
  state_dict = {key: torch.as_tensor(array) for key, array in small_checkpoint().items()}
  save_lightning({}, tmp_path / "a.ckpt", state_dict=state_dict)
  file = convert.convert_file(tmp_path / "a.ckpt", tmp_path / "a.safetensors", "dcgan")
  assert file.config["latent_size"] == 20


def test_a_lightning_checkpoint_of_several_generators_is_refused(tmp_path):
  state_dict = {
    f"{net}.{key}": torch.as_tensor(array)
    for net in ("net", "ema")
    for key, array in small_checkpoint().items()
  }
  save_lightning({}, tmp_path / "a.ckpt", state_dict=state_dict)
  with pytest.raises(ValueError, match=r"a\.ckpt .*several such networks, 'ema\.', 'net\.', exp"):
    convert.convert_file(tmp_path / "a.ckpt", tmp_path / "a.safetensors", "dcgan")


def test_an_array_missing_in_a_lightning_checkpoint_is_named(tmp_path):
  save_lightning(small_checkpoint(**{"main.3.weight": None}), tmp_path / "a.ckpt")
  with pytest.raises(ValueError, match=r"missing keys: main\.3\.weight; choose"):
    convert.convert_file(tmp_path / "a.ckpt", tmp_path / "a.safetensors", "dcgan")


# DCGAN.


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
  assert checkpoints.read_generator(path).source_sha256 in readme
  assert checkpoints.sha256(path) in readme
  generator = generators.load("pretrained:dcgan_faces")
  golden = np.load(GOLDEN / "search_dcgan_faces.npz")
  with jax.default_matmul_precision("highest"):
    images = jax.jit(generator.generate)(generator.variables, golden["z"][0], None)
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
