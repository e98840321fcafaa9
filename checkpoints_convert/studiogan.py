"""Generators of PyTorch-StudioGAN: `resnet`, `big_resnet`, `big_resnet_deep`.

Among the ImageNet networks, SNGAN and SAGAN use `resnet`, and BigGAN and ContraGAN use
`big_resnet`. In upstream's first releases, the conditional batch norms of a `resnet` are class
embeddings. In releases with YAML configs, they are linear maps of the one-hot class. Networks
trained without classes (`g_cond_mtd: W/O`) have plain batch norms (`resnet`), or batch norms
conditioned on the latent (`big_resnet`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from checkpoints_convert import biggan, biggan_deep, state_dict
from checkpoints_convert.variants import Variant
from unseg_jax.errors import InvalidValue

_EPSILON = 1e-4  # Of all batch norms upstream.

# Maps names in upstream's YAML configs to those in its JSON configs.
_FORMER_NAMES = {
  "backbone": "architecture",
  "g_act_fn": "activation_fn",
  "g_depth": "G_depth",
  "g_shared_dim": "shared_dim",
}

# Its README links the checkpoints, which need a manual download.
VARIANTS: dict[str, Variant] = {}
# Keys that only checkpoints of this format contain.
SIGNATURE = ("linear0.bias", "bn4.weight", "conv2d5.bias")
PREFERRED_ENTRY: str | None = None


def convert(checkpoint: Mapping, settings: Mapping[str, Any]) -> tuple[str, dict, dict]:
  """Converts a generator with any of the three ResNet backbones, which its keys identify.

  Args:
    checkpoint: `{'state_dict': {'linear0.weight': ...}, ...}`, or the inner state dict.
    settings: upstream's config (YAML, formerly JSON), nested or flat. It may be empty, because the
      shapes determine everything except the activation function, which must be ReLU. Entries about
      the network must match the arrays; the rest is ignored.

  Returns:
    The architecture's name, "biggan" or "biggan_deep", its config and its float32 variables.

  Raises:
    ValueError: the settings describe another network, a key is missing or unexpected, or an array
      differs from upstream's format.
  """
  state = state_dict.StateDict(checkpoint.get("state_dict", checkpoint))
  settings = _with_former_names(flatten(settings))
  if any(".conv2d3." in key for key in state.keys()):
    for name in ("backbone", "architecture"):
      _check(name, "big_resnet_deep", settings)
    return "biggan_deep", *biggan_deep.studiogan_variables(state, settings)

  layout = _layout(state, settings.get("backbone"))
  config, variables = biggan.convert_network(state, layout)
  backbone = "big_resnet" if layout.is_shared or config["hierarchical"] else "resnet"
  # With the names in upstream's YAML files and, where different, in its JSON files.
  expected = {
    **dict.fromkeys(("backbone", "architecture"), backbone),
    **dict.fromkeys(("g_act_fn", "activation_fn"), "ReLU"),
    "img_size": 4 * 2 ** (len(config["widths"]) - 1),
    "z_dim": config["latent_size"],
    "g_cond_mtd": "cBN" if layout.has_classes else "W/O",
  }
  if layout.has_classes:
    expected["num_classes"] = config["num_classes"]
  if layout.is_shared:
    expected |= dict.fromkeys(("g_shared_dim", "shared_dim"), config["shared_size"])
  for name, value in expected.items():
    _check(name, value, settings)
  return "biggan", config, variables


def flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Merges nested dicts into one, without the entries that upstream marks as unused."""
  flat: dict[str, Any] = {}
  for name, value in settings.items():
    if isinstance(value, Mapping):
      flat |= flatten(value)
    elif value is not None and value != "N/A":
      flat[name] = value
  return flat


def _with_former_names(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Adds the names of upstream's JSON configs to settings from its YAML configs."""
  former = {_FORMER_NAMES.get(name, name): value for name, value in settings.items()}
  named = {**former, **settings}
  # Newer code has two variants with the same arrays.
  for name in ("backbone", "architecture"):
    if str(named.get(name)).startswith("big_resnet_deep_"):
      named[name] = "big_resnet_deep"
  return named


def _check(name: str, expected: Any, settings: Mapping[str, Any]) -> None:
  if settings.get(name, expected) != expected:
    raise InvalidValue(
      f"setting {name} is {settings[name]!r}, expected {expected!r}: pass the config that this "
      "checkpoint was trained with as --config=FILE"
    )


def _layout(state: state_dict.StateDict, backbone: str | None) -> biggan.Layout:
  # Self-attention shares the numbering of blocks.
  blocks: list[str] = []
  attention: dict[int, str] = {}
  for prefix in (f"{block}.0" for block in biggan.find_blocks(state)):
    if any(key.startswith(f"{prefix}.conv1x1_") for key in state.keys()):
      attention[len(blocks) - 1] = prefix
    else:
      blocks.append(prefix)
  has_spectral_norm = any(key.endswith(".weight_orig") for key in state.keys())
  is_embedding = any(".embed0." in key for key in state.keys())
  weight = "weight_orig" if has_spectral_norm else "weight"
  is_shared = "shared.weight" in state
  # The condition of a `big_resnet` without classes has the size of the first layer's input.
  condition = f"blocks.0.0.bn1.gain.{weight}"
  has_classes = "blocks.0.0.bn1.weight" not in state
  if condition in state and not is_shared and backbone != "resnet":
    has_classes = state.size(condition, 1) != state.size(f"linear0.{weight}", 1)
  return biggan.Layout(
    blocks=tuple(blocks),
    attention=attention,
    is_shared=is_shared,
    has_classes=has_classes,
    weight=weight,
    take_weight=state_dict.torch_spectral_norm if has_spectral_norm else _take_weight,
    epsilons=(_EPSILON, _EPSILON),
    project="linear0",
    convolutions={"conv_1": "conv2d1", "conv_2": "conv2d2", "shortcut": "conv2d0"},
    condition=("embed0", "embed1") if is_embedding else ("gain", "bias"),
    condition_axis=0 if is_embedding else 1,
    statistics=("bn.running_mean", "bn.running_var"),
    attention_layers={
      "query": "conv1x1_theta",
      "key": "conv1x1_phi",
      "value": "conv1x1_g",
      "out": "conv1x1_attn",
    },
    attention_weight=("sigma", (1,)),
    norm=tuple(f"bn4.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
    out="conv2d5",
  )


def _take_weight(state: state_dict.StateDict, prefix: str, *shape: int) -> np.ndarray:
  return state.take(f"{prefix}.weight", *shape)
