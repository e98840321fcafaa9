"""Damaged and forged checkpoints give a one-line error or a working generator."""

import io
import os
import pathlib

import golden_unet
import jax
import numpy as np
import pytest
import torch
from whole_runs import GOLDEN

from checkpoints_convert import convert
from unseg_jax import generators

# Source -> its format and the required settings.
SOURCES = {
  "biggan": ("biggan", {"BN_eps": 1e-5, "SN_eps": 1e-6}),
  "dcgan": ("dcgan", {}),
  "selfcond": ("selfcond", {}),
  "studiogan_sagan": ("studiogan", {}),
  "stylegan2": ("stylegan2", {}),
  "unet": ("unet", {}),
}
BATCH = 20


class _Trap:
  """Leaves a trace if the reader executes it."""

  def __reduce__(self):
    return os.mkdir, ("trace",)


def read(name):
  if name == "unet":
    state = golden_unet.make_state_dict(16)
    return {"model": {key: torch.as_tensor(array) for key, array in state.items()}}
  return torch.load(GOLDEN / f"{name}.pth", weights_only=True)


def change_array(array, random):
  """Changes the shape, dtype or content of an array, or replaces it by another object."""
  shape = list(array.shape)
  axis = random.integers(len(shape)) if shape else 0
  first = array.flatten()[:1]
  return [
    lambda: array.transpose(0, axis) if shape else array[None],
    lambda: array.flatten(),
    lambda: array[None],
    lambda: array.narrow(axis, 0, int(random.integers(shape[axis]))) if shape else array[None],
    lambda: torch.cat([array, array], axis) if shape else array.repeat(2),
    lambda: first.expand(10 ** random.integers(2, 13)),
    lambda: array.to([torch.int8, torch.bool, torch.complex64, torch.float64][axis % 4]),
    lambda: array.to([torch.float16, torch.bfloat16, torch.float8_e5m2][axis % 3]),
    lambda: array.double() * 10.0 ** random.integers(-300, 300),
    lambda: array * float("nan"),
    lambda: -array,
    lambda: 0 * array,
    lambda: torch.zeros(0),
    lambda: array.to_sparse(),
    lambda: array.to("meta"),
    lambda: [array, array],
    lambda: {"a": array},
    lambda: None,
    lambda: "text",
    lambda: 10**30,
    lambda: _Trap(),
  ][random.integers(21)]()


def change_key(key, random):
  names = key.split(".")
  i = random.integers(len(names))
  others = ["0", "7", "99", "weight", "bias", "", "module", "conv1", "ü", "..", "a" * 1000]
  names[i] = others[random.integers(len(others))]
  return [".".join(names), key[::-1], i, None, (key, i), key.upper()][random.integers(6)]


def change_structure(checkpoint, random):
  """Changes some entries of the dict of arrays, then sometimes wraps the dict."""
  changed = dict(checkpoint)
  inner = max((v for v in changed.values() if isinstance(v, dict)), key=len, default=None)
  arrays = dict(changed if inner is None else inner)
  for _ in range(random.integers(1, 4)):
    keys = [key for key, x in arrays.items() if isinstance(x, torch.Tensor)]
    if not keys:
      break
    key = keys[random.integers(len(keys))]
    action = random.integers(5)
    if action == 0:
      del arrays[key]
    elif action == 1:
      arrays[change_key(str(key), random)] = arrays.pop(key)
    elif action == 2:
      arrays[key] = arrays[keys[random.integers(len(keys))]]
    else:
      arrays[key] = change_array(arrays[key], random)
  if random.random() < 0.3:
    arrays = {f"module.{key}": array for key, array in arrays.items()}
  return arrays if random.random() < 0.3 else {"model": arrays, "g_ema": dict(arrays)}


def change_bytes(data, random):
  """Flips, cuts, duplicates or blanks some bytes, most often structural ones."""
  data = bytearray(data)
  interesting = [0, data.find(b".pkl"), data.find(b"cnn_"), len(data) - 500]
  for _ in range(random.integers(1, 6)):
    start = max(0, interesting[random.integers(4)]) + int(random.integers(3000))
    start = start if random.random() < 0.7 else int(random.integers(len(data)))
    start = min(start, len(data) - 1)
    size = int(random.integers(1, 50))
    action = random.integers(5)
    if action < 2:
      data[start] ^= 1 << int(random.integers(8))
    elif action == 2:
      data[start : start + size] = random.bytes(size)
    elif action == 3:
      data[start:start] = data[start : start + size]
    elif random.random() < 0.3:
      del data[start:]
    else:
      del data[start : start + size]
    if not data:
      break
  return bytes(data)


def mutate(seed):
  """The mutation with a given number: the bytes of a file, its format and its settings."""
  random = np.random.default_rng(seed)
  name = sorted(SOURCES)[random.integers(len(SOURCES))]
  checkpoint = read(name)
  flips = random.random() < 0.4
  if not flips:
    checkpoint = change_structure(checkpoint, random)
  file = io.BytesIO()
  torch.save(checkpoint, file, _use_new_zipfile_serialization=bool(random.random() < 0.6))
  data = file.getvalue()
  return change_bytes(data, random) if flips else data, *SOURCES[name]


def check(seed, folder):
  """Converts a mutation; returns whether this gave a generator."""
  data, format_name, settings = mutate(seed)
  source, output = folder / "a.pth", folder / "a.safetensors"
  source.write_bytes(data)
  try:
    convert.convert_file(source, output, format_name, settings=settings)
  except ValueError as error:
    assert "\n" not in str(error) and str(source) in str(error), (seed, error)
    assert len(str(error)) < 3000, (seed, error)
    assert [path.name for path in folder.iterdir()] == ["a.pth"], seed
    return False
  assert {path.name for path in folder.iterdir()} == {"a.pth", "a.safetensors"}, seed
  if format_name != "unet":
    generator = generators.load(output)
    latents, labels = jax.eval_shape(
      lambda: generators.sample_at(generator, jax.random.key(0), np.arange(2))
    )
    images = jax.eval_shape(generator.generate, generator.variables, latents, labels)
    assert images.shape == (2, generator.image_size, generator.image_size, 3), seed
  output.unlink()
  return True


def check_all(seeds, folder, monkeypatch):
  folder = folder / "mutations"
  folder.mkdir()
  monkeypatch.chdir(folder)  # The traps would leave their trace here.
  made = [check(seed, folder) for seed in seeds]
  assert 0 < sum(made) < len(made)


def test_a_mutated_checkpoint_is_one_line_or_a_generator(tmp_path, monkeypatch):
  check_all(range(60), tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 2000, 200))
def test_many_mutated_checkpoints(start, tmp_path, monkeypatch):
  check_all(range(start, start + 200), tmp_path, monkeypatch)


@pytest.mark.parametrize("name", ["dcgan", "selfcond", "stylegan2", "unet"])
def test_forged_shapes_do_not_fill_the_memory(name, tmp_path):
  """Small arrays whose shapes imply a large array, which is missing."""
  keys = {
    "dcgan": ["main.0.weight", "main.3.weight", "main.6.weight", "main.9.weight", "main.12.weight"],
    "selfcond": ["resnet_0_0.conv_0.weight", "resnet_5_1.conv_1.weight", "conv_img.weight"],
    "stylegan2": ["synthesis.b4.const", "mapping.fc0.weight", "mapping.w_avg"],
    "unet": ["inc.double_conv.0.weight", "outc.conv.weight", "up1.conv.double_conv.0.weight"],
  }
  arrays = {key: torch.zeros(100_000, 1) for key in keys[name]}
  arrays |= {"conv_img.weight": torch.zeros(3, 100_000)} if name == "selfcond" else {}
  torch.save(arrays, tmp_path / "a.pth")
  with pytest.raises(ValueError, match=r"missing keys|has shape \[100000, 1\], expected"):
    convert.convert_file(tmp_path / "a.pth", tmp_path / "a.safetensors", SOURCES[name][0])


def test_the_traps_work(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  torch.save(_Trap(), "a.pth")
  torch.load("a.pth", weights_only=False)
  assert pathlib.Path("trace").exists()
