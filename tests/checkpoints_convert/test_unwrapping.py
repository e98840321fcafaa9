"""Networks are found in any container: names, prefixes and nested dicts."""

import re

import golden_unet
import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
import torch
from whole_runs import GOLDEN

from checkpoints_convert import convert, torch_reader, unwrapping
from unseg_jax.artifacts import generator_files

# Checkpoint -> its format and the required settings.
NETWORKS = {
  "biggan": ("biggan", {"BN_eps": 1e-5, "SN_eps": 1e-6}),
  "dcgan": ("dcgan", {}),
  "selfcond": ("selfcond", {}),
  "studiogan_sagan": ("studiogan", {}),
  "studiogan_big_resnet": ("studiogan", {}),
  "studiogan_big_resnet_deep": ("studiogan", {}),
  "stylegan2": ("stylegan2", {}),
  "uncond": ("selfcond", {}),
  "unet": ("unet", {}),
}


def network(name):
  """A network's bare state dict."""
  if name == "unet":
    return golden_unet.make_state_dict(16)
  checkpoint = torch_reader.read(GOLDEN / f"{name}.pth")
  for entry in ("generator", "netG_state_dict", "state_dict"):
    checkpoint = checkpoint.get(entry, checkpoint)
  return checkpoint


def converted(checkpoint, name):
  format_name, settings = NETWORKS[name]
  module = convert.FORMATS[format_name]
  return unwrapping.convert(
    checkpoint,
    module.SIGNATURE,
    lambda arrays: module.convert(arrays, settings),
    module.PREFERRED_ENTRY,
  )


def is_same(one, other):
  assert one[:2] == other[:2]
  jax.tree.map(np.testing.assert_array_equal, one[2], other[2])
  return True


PREFIXES = ["module.", "_orig_mod.", "module._orig_mod.", "generator.", "netG.", "model.", "net."]
ENTRIES = ["netG", "generator", "model", "g_ema", "ema", "params_ema", "state_dict", "G", "weights"]


@pytest.mark.parametrize("name", NETWORKS)
@hypothesis.settings(max_examples=8, deadline=None, derandomize=True)
@hypothesis.given(
  prefixes=st.lists(st.sampled_from(PREFIXES), max_size=3),
  entries=st.lists(st.sampled_from(ENTRIES), max_size=4),
  others=st.dictionaries(
    st.sampled_from(["epoch", "d_optim", "D"]),
    st.sampled_from([3, {"state": {0: {"step": 1}}}, {"conv.weight": np.ones(2)}, None, "text"]),
  ),
)
def test_the_one_network_of_a_checkpoint_is_found(name, prefixes, entries, others):
  arrays = network(name)
  checkpoint = {"".join(prefixes) + key: array for key, array in arrays.items()}
  for entry in reversed(entries):
    checkpoint = {**others, entry: checkpoint, "step": 7}
  assert is_same(converted(checkpoint, name), converted(arrays, name))


def test_settings_beside_the_keys_of_a_network_do_not_belong_to_it():
  checkpoint = {**network("dcgan"), "epoch": 3, "optimizer": {"lr": 1.0}}
  assert is_same(converted(checkpoint, "dcgan"), converted(network("dcgan"), "dcgan"))


def test_wrappers_between_a_networks_layers_are_taken_off():
  checkpoint = {
    key.replace("synthesis.", "synthesis.module."): x for key, x in network("stylegan2").items()
  }
  assert is_same(converted(checkpoint, "stylegan2"), converted(network("stylegan2"), "stylegan2"))


@pytest.mark.parametrize(
  "pair",
  [("g", "g_ema"), ("G", "G_ema"), ("params", "params_ema"), ("model", "ema"), ("netG", "netGEma")],
)
@pytest.mark.parametrize("name", ["dcgan", "stylegan2", "unet"])
def test_of_a_network_and_its_average_the_average_is_taken(pair, name):
  average = network(name)
  current = {key: x * 2 if "weight" in key else x for key, x in average.items()}
  both = dict(zip(pair, (current, average), strict=True))
  flat = {f"{entry}.{key}": x for entry, arrays in both.items() for key, x in arrays.items()}
  for checkpoint in (both, dict(reversed(both.items())), flat, {"training": {"networks": both}}):
    assert is_same(converted(checkpoint, name), converted(average, name))


def test_selfcond_takes_the_generator_that_the_paper_takes():
  current = network("selfcond")
  average = {key: 2 * array for key, array in current.items()}
  for checkpoint in (
    {"generator": current, "generator_test": average},
    {"generator_test": average, "generator": current, "it": 3},
  ):
    assert is_same(converted(checkpoint, "selfcond"), converted(current, "selfcond"))


def test_the_same_network_twice_is_one():
  arrays = network("dcgan")
  copies = {key: array.copy() for key, array in arrays.items()}
  checkpoint = {"best": arrays, "last": copies}
  assert is_same(converted(checkpoint, "dcgan"), converted(arrays, "dcgan"))


def test_several_different_networks_are_named():
  arrays = network("dcgan")
  narrow = {
    "main.0.weight": arrays["main.0.weight"][:10],
  }
  checkpoint = {"g_ema": arrays, "small_ema": arrays | narrow}
  message = "several networks of this format, 'g_ema', 'small_ema', expected one"
  with pytest.raises(ValueError, match=message):
    converted(checkpoint, "dcgan")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"main.3.weight": None}, r"looked in 'a' > 'net\.': missing keys: main\.3\.weight"),
    ({"main.0.weight": None}, r"looked in 'a' > 'net\.': missing keys: main\.0\.weight"),
    ({"main.99.weight": np.ones(1)}, r"'a' > 'net\.': unexpected keys: main\.99\.weight"),
    ({"main.1.bias": np.ones(3)}, r"main\.1\.bias has shape \[3\], expected \[64\]"),
  ],
)
def test_what_a_network_that_nearly_fits_lacks_is_named(changes, message):
  arrays = {key: x for key, x in (network("dcgan") | changes).items() if x is not None}
  checkpoint = {"a": {f"net.{key}": array for key, array in arrays.items()}, "epoch": 3}
  with pytest.raises(ValueError, match=message):
    converted(checkpoint, "dcgan")
  damaged = {f"net.{key}": array for key, array in list(arrays.items())[9:]}
  with pytest.raises(ValueError, match=r"the nearest is 'a' > 'net\.'"):
    converted({"b": damaged, **checkpoint}, "dcgan")


def test_a_network_that_fits_is_taken_before_one_that_nearly_does():
  arrays = network("dcgan")
  damaged = {key: array for key, array in arrays.items() if key != "main.3.weight"}
  assert is_same(converted({"g_ema": damaged, "g": arrays}, "dcgan"), converted(arrays, "dcgan"))


@pytest.mark.parametrize("is_zip", [True, False])
def test_the_file_of_a_training_is_converted(tmp_path, is_zip):
  """The U-Net format of "Big GANs Are Watching You", `{"model": state_dict}`."""
  arrays = {key: torch.as_tensor(x) for key, x in network("unet").items()}
  path, output = tmp_path / "a.pth", tmp_path / "a.safetensors"
  torch.save({"model": arrays}, path, _use_new_zipfile_serialization=is_zip)
  convert.convert_file(path, output, "unet")
  bare = converted(network("unet"), "unet")
  file = generator_files.read_generator(output)
  assert is_same((file.architecture, file.config, file.variables), bare)


def test_a_checkpoint_of_another_format_is_recognised_in_its_wrapping(tmp_path):
  arrays = {f"module.{key}": torch.as_tensor(x) for key, x in network("dcgan").items()}
  torch.save({"a": {"b": arrays}}, tmp_path / "a.pth")
  with pytest.raises(ValueError, match=re.escape("it looks like --format=dcgan")):
    convert.convert_file(tmp_path / "a.pth", tmp_path / "a.safetensors", "stylegan2")
