"""SNGAN, SAGAN, BigGAN and ContraGAN of StudioGAN generate upstream's images."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from whole_runs import GOLDEN

from checkpoints_convert import studiogan, torch_reader
from unseg_jax import generators
from unseg_jax.generators import biggan

# "new" networks are from upstream's releases with YAML configs.
NAMES = ("sagan", "sngan", "big_resnet", "new_sagan", "new_sngan")


def read(name, **changes):
  """Upstream's checkpoint with keys replaced, or removed for None."""
  checkpoint = torch_reader.read(GOLDEN / f"studiogan_{name}.pth")
  arrays = checkpoint["state_dict"] | changes
  arrays = {key: array for key, array in arrays.items() if array is not None}
  return checkpoint | {"state_dict": arrays}


def read_golden(name):
  return np.load(GOLDEN / f"studiogan_{name}.npz")


def flat_config(name):
  return json.loads(str(read_golden(name)["config"]))


def nested_config(name):
  """The same settings in the format of StudioGAN's files, for instance for ContraGAN."""
  flat = flat_config(name)
  if name.startswith("new"):
    model = {"backbone": "resnet", "g_act_fn": "ReLU", "g_shared_dim": "N/A"}
    model |= {key: flat[key] for key in ("z_dim", "g_cond_mtd", "apply_g_sn", "attn_g_loc")}
    data = {"name": "ImageNet", "img_size": flat["img_size"], "num_classes": flat["num_classes"]}
    return {"DATA": data, "MODEL": model, "OPTIMIZATION": {"batch_size": 256}}
  data = {"dataset_name": "imagenet", "img_size": flat["img_size"], "num_classes": 10}
  model = {
    "architecture": "big_resnet" if name == "big_resnet" else "resnet",
    "conditional_strategy": "ContraGAN",
    "activation_fn": "ReLU",
    "attention_after_nth_gen_block": 4 if flat["attention"] else "N/A",
    "z_dim": flat["z_dim"],
    "shared_dim": flat["shared_dim"] or "N/A",
  }
  return {"data_processing": data, "train": {"model": model, "optimization": {"momentum": "N/A"}}}


def make(name, settings):
  architecture, config, variables = studiogan.convert(read(name), settings)
  assert architecture == "biggan"
  return biggan.build(config, variables, "identity")


def assert_makes_upstreams_pictures(generator, name):
  golden = read_golden(name)
  assert generator.latent_shape == golden["z"].shape[1:]
  with jax.default_matmul_precision("highest"):
    images = jax.jit(generator.generate)(generator.variables, golden["z"], golden["label"])
  np.testing.assert_allclose(images, golden["image"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_generators_make_upstreams_pictures(name):
  generator = make(name, flat_config(name))
  assert (generator.image_size, generator.num_classes) == (128, 10)
  assert_makes_upstreams_pictures(generator, name)


@pytest.mark.parametrize(
  ("name", "architecture", "classes"),
  [
    ("wo_resnet", "biggan", None),
    ("wo_big_resnet", "biggan", None),
    ("deep_studiogan", "biggan_deep", 5),
  ],
)
@pytest.mark.parametrize("is_described", [True, False])
def test_networks_without_classes_and_with_learned_shortcuts(
  name, architecture, classes, is_described
):
  """Their golden files come from the code of upstream's releases with YAML configs."""
  settings = flat_config(name) if is_described else {}
  found, config, variables = studiogan.convert(read(name), settings)
  generator = generators.ARCHITECTURES[found].build(config, variables, "small")
  assert (found, generator.num_classes, generator.image_size) == (architecture, classes, 32)
  assert_makes_upstreams_pictures(generator, name)


def test_the_config_decides_whether_equal_sizes_are_classes():
  """A `resnet` with as many classes as latent dimensions has the shapes of a `big_resnet`."""
  sizes = {}
  for backbone in ("resnet", "big_resnet"):
    _, config, _ = studiogan.convert(read("wo_big_resnet"), {"backbone": backbone})
    sizes[backbone] = (config["latent_size"], config["num_classes"])
  assert sizes == {"resnet": (6, 6), "big_resnet": (24, None)}


@pytest.mark.parametrize("name", NAMES)
def test_the_config_may_be_flat_nested_or_absent(name):
  expected, *others = (
    studiogan.convert(read(name), settings)
    for settings in (flat_config(name), nested_config(name), {})
  )
  others.append(studiogan.convert(read(name)["state_dict"], {}))
  for converted in others:
    assert converted[:2] == expected[:2]
    jax.tree.map(np.testing.assert_array_equal, converted[2], expected[2])


def test_bfloat16_gives_nearly_the_same_pictures():
  generator, golden = make("sngan", {}), read_golden("sngan")
  latents, variables = jax.tree.map(
    lambda x: jnp.asarray(x, jnp.bfloat16), (golden["z"], generator.variables)
  )
  images = jax.jit(generator.generate)(variables, latents, golden["label"])
  assert images.dtype == jnp.float32 and np.isfinite(images).all()
  assert np.abs(images - golden["image"]).mean() < 0.05


@pytest.mark.parametrize(
  ("name", "settings", "message"),
  [
    ("sagan", {"img_size": 64}, "img_size is 64, expected 128: pass the config that this checkp"),
    ("sagan", {"train": {"model": {"z_dim": 128}}}, "z_dim is 128, expected 32"),
    ("sngan", {"architecture": "big_resnet"}, "architecture is 'big_resnet', expected 'resnet'"),
    ("sngan", {"activation_fn": "ELU"}, "activation_fn is 'ELU', expected 'ReLU'"),
    ("big_resnet", {"shared_dim": 128}, "shared_dim is 128, expected 16"),
    ("big_resnet", {"num_classes": 1000}, "num_classes is 1000, expected 10"),
    ("new_sagan", {"MODEL": {"backbone": "big_resnet"}}, "backbone is 'big_resnet', expected 'res"),
    ("new_sngan", {"MODEL": {"g_act_fn": "ELU"}}, "g_act_fn is 'ELU', expected 'ReLU'"),
    ("wo_resnet", {"MODEL": {"g_cond_mtd": "cBN"}}, "g_cond_mtd is 'cBN', expected 'W/O'"),
  ],
)
def test_the_config_of_another_network_is_refused(name, settings, message):
  with pytest.raises(ValueError, match=message):
    studiogan.convert(read(name), settings)


@pytest.mark.parametrize(
  ("name", "changes", "message"),
  [
    ("sngan", {"linear0.weight": None}, "missing keys: linear0.weight"),
    ("sagan", {"blocks.4.0.sigma": None}, "missing keys: blocks.4.0.sigma"),
    ("sagan", {"linear0.weight_u": None}, "missing keys: linear0.weight_u"),
    ("sagan", {"blocks.3.0.bn2.embed1.weight_orig": None}, "blocks.3.0.bn2.embed1.weight_orig"),
    ("new_sagan", {"blocks.3.0.bn2.gain.weight_u": None}, "blocks.3.0.bn2.gain.weight_u"),
    ("new_sngan", {"blocks.2.0.bn1.bias.weight": np.ones((32, 9))}, "[32, 9], expected [32, 10]"),
    ("big_resnet", {"extra": np.ones(2)}, "unexpected keys: extra"),
    ("sngan", {"bn4.weight": np.ones(5)}, "bn4.weight has shape [5], expected [4]"),
    ("sngan", {"bn4.running_var": np.full(4, np.nan)}, "bn4.running_var holds NaN or infinity"),
  ],
)
def test_a_checkpoint_that_is_not_quite_studiogans_is_refused(name, changes, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    studiogan.convert(read(name, **changes), {})


def test_a_checkpoint_of_another_project_is_refused():
  checkpoint = torch_reader.read(GOLDEN / "dcgan.pth")
  for wrong in (checkpoint, {"state_dict": checkpoint["netG_state_dict"]}):
    with pytest.raises(ValueError, match=r"missing keys: linear0\.weight.*unexpected keys: "):
      studiogan.convert(wrong, {})
  for name in NAMES:
    assert all(key in read(name)["state_dict"] for key in studiogan.SIGNATURE)
  assert not any(key in checkpoint["netG_state_dict"] for key in studiogan.SIGNATURE)


def test_a_deep_backbone_becomes_a_biggan_deep():
  settings = flat_config("big_resnet_deep")
  assert studiogan.convert(read("big_resnet_deep"), settings)[0] == "biggan_deep"
  with pytest.raises(ValueError, match="'big_resnet', expected 'big_resnet_deep'"):
    studiogan.convert(read("big_resnet_deep"), settings | {"architecture": "big_resnet"})
