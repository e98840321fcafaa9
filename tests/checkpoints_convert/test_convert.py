"""Converts published checkpoints by command, by name and by detecting their format."""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch
from PIL import Image
from small_checkpoints import save_lightning, small_checkpoint
from whole_runs import GOLDEN, ROOT

from checkpoints_convert import contact_sheet, convert, dcgan, rosinality
from checkpoints_convert.variants import Variant
from unseg_jax import generators
from unseg_jax.artifacts import generator_files
from unseg_jax.images import writing


def run_command(*arguments):
  return subprocess.run(
    [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
  )


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
  file = generator_files.read_generator(path)
  assert file.source_sha256 == hashlib.sha256((GOLDEN / "dcgan.pth").read_bytes()).hexdigest()
  with Image.open(sheet) as picture:
    assert picture.size == (2 * 64, 3 * 64)

  # Repeating the conversion in another process gives the same bytes, but needs --overwrite.
  with pytest.raises(FileExistsError, match=r"small\.safetensors exists already.*--overwrite"):
    convert.convert_file(GOLDEN / "dcgan.pth", path, "dcgan")
  first, first_sheet = path.read_bytes(), sheet.read_bytes()
  path.write_bytes(b"")
  convert.convert_file(GOLDEN / "dcgan.pth", path, "dcgan", overwrite=True)
  assert path.read_bytes() == first
  assert contact_sheet.draw(path, 5) == sheet and sheet.read_bytes() == first_sheet

  # An existing sheet is detected before anything is written.
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
  expected = writing.grid(writing.to_uint8(images), 2).astype(int)
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


YAML = """
# As the current PyTorch-StudioGAN writes them.
DATA:
  name: "ImageNet"
  img_size: 128
  num_classes: 10
MODEL:
  backbone: "resnet"
  g_cond_mtd: "cBN"
  apply_g_sn: True
  g_act_fn: "ReLU"
  z_dim: 32
  g_shared_dim: "N/A"
  g_depth: "N/A"
OPTIMIZATION:
  g_lr: 1e-4
"""


def test_settings_may_be_yaml(tmp_path):
  for name in ("a.yaml", "a.yml", "a"):
    (tmp_path / name).write_text(YAML)
    settings = convert.read_settings(tmp_path / name)
    assert settings["DATA"]["img_size"] == 128 and settings["OPTIMIZATION"]["g_lr"] == 1e-4
  source, output = GOLDEN / "studiogan_sagan.pth", tmp_path / "a.safetensors"
  with_config = convert.convert_file(source, output, "studiogan", settings=settings)
  without = convert.convert_file(source, output, "studiogan", overwrite=True)
  assert with_config.config == without.config
  wrong = {**settings, "MODEL": {**settings["MODEL"], "backbone": "big_resnet"}}
  with pytest.raises(ValueError, match="setting backbone is 'big_resnet', expected 'resnet'"):
    convert.convert_file(source, output, "studiogan", settings=wrong, overwrite=True)


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"- 1", "holds a list, expected an object"),
    (b"a: [", r"a\.yaml is neither JSON nor YAML \(.*expected names and values$"),
    (b"a: !!python/object/apply:os.system [exit 1]", "is neither JSON nor YAML"),
    (b"a: \xff\xfe", "is neither JSON nor YAML"),
  ],
)
def test_settings_in_yaml_that_are_no_mapping_are_refused(tmp_path, content, message):
  (tmp_path / "a.yaml").write_bytes(content)
  with pytest.raises(ValueError, match=message) as error:
    convert.read_settings(tmp_path / "a.yaml")
  assert "\n" not in str(error.value)


# Published checkpoints.


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
  # A URL, a file and an explicit format give the same result.
  (served.folder / "a.pth").rename(served.folder / "b.pth")
  convert.convert_file(f"{served.url}/b.pth", tmp_path / "b.safetensors", "dcgan")
  convert.convert_file(GOLDEN / "dcgan.pth", tmp_path / "c.safetensors", "dcgan", "small")
  assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_a_published_checkpoint_that_was_exchanged_is_refused(tmp_path, served, monkeypatch):
  (served.folder / "a.pth").write_bytes((GOLDEN / "dcgan.pth").read_bytes())
  publish(monkeypatch, url=f"{served.url}/a.pth", sha256="0" * 64)
  with pytest.raises(ValueError, match=rf"{served.url}/a\.pth does not have the published SHA-256"):
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
    ("dcgan", "selfcondgan-imagenet", r"is of the format selfcond, but --format=dcgan .*omit"),
    (None, None, r"expected --format with one of biggan, biggan_deep, cips, .* --variant=NAME"),
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
  "cips_skip": "cips",
  "dcgan": "dcgan",
  "selfcond": "selfcond",
  "studiogan_new_sagan": "studiogan",
  "studiogan_sngan": "studiogan",
  "stylegan2": "stylegan2",
  "stylegan2_rosinality": "rosinality",
  "stylegan3_r": "stylegan3",
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


@pytest.mark.parametrize(
  "name", ["cips_skip", "dcgan", "stylegan2", "stylegan2_rosinality", "studiogan_new_sngan"]
)
def test_the_format_is_detected_from_the_keys(tmp_path, name):
  paths = tmp_path / "given.safetensors", tmp_path / "found.safetensors"
  for path, format_name in zip(paths, (GOLDEN_FORMATS.get(name, "studiogan"), None), strict=True):
    convert.convert_file(GOLDEN / f"{name}.pth", path, format_name)

  given, found = (path.read_bytes() for path in paths)
  assert given == found


def test_a_format_that_the_keys_do_not_tell_has_to_be_named(tmp_path):
  torch.save({"epoch": torch.ones(1)}, tmp_path / "none.pth")
  both = {
    name: torch.load(GOLDEN / f"{name}.pth", weights_only=True) for name in ("dcgan", "cips_skip")
  }
  torch.save(both, tmp_path / "both.pth")
  for name, message in (
    ("none", "has an unknown format"),
    ("both", "holds networks of cips and dcgan"),
  ):
    with pytest.raises(ValueError, match=rf"{name}\.pth {message}: expected --format with one of"):
      convert.convert_file(tmp_path / f"{name}.pth", tmp_path / "a.safetensors")
  assert not list(tmp_path.glob("*.safetensors"))


# Networks trained with rosinality's code, in the containers that its forks save.


@pytest.mark.parametrize("names", [("g_ema", ""), ("params_ema", ""), ("ema", "module.")])
@pytest.mark.parametrize("is_training", [True, False])
def test_the_averaged_network_is_taken_whatever_it_is_called(tmp_path, names, is_training):
  outer, prefix = names
  checkpoint = torch.load(GOLDEN / "stylegan2_rosinality.pth", weights_only=True)
  averaged = {f"{prefix}{key}": array for key, array in checkpoint.pop("g_ema").items()}
  if is_training:
    del checkpoint["latent_avg"]
    checkpoint |= {"args": argparse.Namespace(size=64), "ada_aug_p": 0.0}
  torch.save({**checkpoint, outer: averaged}, tmp_path / "a.pt")
  file = convert.convert_file(tmp_path / "a.pt", tmp_path / "a.safetensors")
  expected = rosinality.convert(
    {key: np.asarray(array) for key, array in checkpoint.items() if key == "latent_avg"}
    | {"g_ema": {key.removeprefix(prefix): np.asarray(a) for key, a in averaged.items()}},
    {},
  )
  assert (file.architecture, file.config) == expected[:2]
  jax.tree.map(np.testing.assert_array_equal, file.variables, expected[2])


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
    file = generator_files.read_generator(output)
    assert file.config == expected[1]
    jax.tree.map(np.testing.assert_array_equal, file.variables, expected[2])


def test_a_lightning_checkpoint_without_a_prefix_is_converted(tmp_path):
  state_dict = {key: torch.as_tensor(array) for key, array in small_checkpoint().items()}
  save_lightning({}, tmp_path / "a.ckpt", state_dict=state_dict)
  file = convert.convert_file(tmp_path / "a.ckpt", tmp_path / "a.safetensors", "dcgan")
  assert file.config["latent_size"] == 20


def test_a_lightning_checkpoint_of_several_generators_is_refused(tmp_path):
  state_dict = {
    f"{net}.{key}": torch.as_tensor(array)
    for net in ("net", "net2")
    for key, array in small_checkpoint().items()
  }
  state_dict["net2.main.0.weight"] = 2 * state_dict["net.main.0.weight"]
  save_lightning({}, tmp_path / "a.ckpt", state_dict=state_dict)
  message = (
    r"a\.ckpt .*several networks of this format, 'state_dict' > 'net2?\.', "
    r"'state_dict' > 'net2?\.', e"
  )
  with pytest.raises(ValueError, match=message):
    convert.convert_file(tmp_path / "a.ckpt", tmp_path / "a.safetensors", "dcgan")


def test_an_array_missing_in_a_lightning_checkpoint_is_named(tmp_path):
  save_lightning(small_checkpoint(**{"main.3.weight": None}), tmp_path / "a.ckpt")
  with pytest.raises(ValueError, match=r"missing keys: main\.3\.weight; choose"):
    convert.convert_file(tmp_path / "a.ckpt", tmp_path / "a.safetensors", "dcgan")
