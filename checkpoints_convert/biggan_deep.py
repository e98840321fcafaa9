"""BigGAN-deep as published by Hugging Face's `pytorch-pretrained-BigGAN`, and as in StudioGAN.

Both store the same network (arXiv 1809.11096, appendix B) under different names. They differ in the
order of latent and class in the condition, in the layout of the initial activations, and in the
batch norms. Hugging Face's batch norms hold statistics for 51 truncations, StudioGAN's hold one
set. StudioGAN's variant `big_resnet_deep_studiogan` adds a convolution to each shortcut.
"""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from checkpoints_convert import state_dict
from checkpoints_convert.state_dict import StateDict
from checkpoints_convert.variants import Variant
from unseg_jax.errors import InvalidValue

_TRUNCATION = 0.4  # The default; it can be overridden at load time.
_NUM_STATISTICS = 51  # At the truncations 0, 0.02, ... 1.
_STUDIOGAN_EPSILON = 1e-4  # Of all batch norms of StudioGAN.
# Blocks per resolution. Upstream's table of channels matches no other depth, except at 32 x 32
# pixels.
_STUDIOGAN_DEPTH = 2
_NUM_PIXELS = 4 * 4  # Of the initial activations.
_CHANNELS = 3  # Hugging Face's networks generate RGB images.
_REDUCTION = 4  # A block's inner layers have a quarter of the channels of its input.

# Upstream's names. Blocks and attention share one numbering, and so do norms and convolutions
# within a block.
_HUGGING_FACE = {
  "layer": "generator.layers.{}",
  "norms": ("bn_0", "bn_1", "bn_2", "bn_3"),
  "convolutions": ("conv_0", "conv_1", "conv_2", "conv_3"),
  "query": "snconv1x1_theta",
  "key": "snconv1x1_phi",
  "value": "snconv1x1_g",
  "out": "snconv1x1_o_conv",
  "out_weight": "gamma",
}
_STUDIOGAN = {
  "layer": "blocks.{}.0",
  "norms": ("bn1", "bn2", "bn3", "bn4"),
  "convolutions": ("conv2d1", "conv2d2", "conv2d3", "conv2d4"),
  "query": "conv1x1_theta",
  "key": "conv1x1_phi",
  "value": "conv1x1_g",
  "out": "conv1x1_attn",
  "out_weight": "sigma",
}
_SHORTCUT = "conv2d0"  # The name in `big_resnet_deep_studiogan`; other networks have none.
# Entries of Hugging Face's config.json. The first two cannot be inferred from arrays: the blocks
# that double the resolution, and the epsilon of variances. The others are optional and are checked.
_NEEDED_SETTINGS = ("layers", "eps")
_SETTINGS = (
  *_NEEDED_SETTINGS,
  "attention_layer_position",
  "channel_width",
  "class_embed_dim",
  "n_stats",
  "num_classes",
  "output_dim",
  "z_dim",
)

# Keys that only checkpoints of this format contain.
SIGNATURE = ("embeddings.weight", "generator.gen_z.weight_orig", "generator.bn.running_means")
PREFERRED_ENTRY: str | None = None


def _published(size: int, *multiples: int) -> Variant:
  """Returns a published network with two blocks per resolution; widths in `channel_width`s."""
  layers = []
  for before, after in itertools.pairwise(multiples):
    layers += [[False, before, before], [True, before, after]]
  folder = "https://s3.amazonaws.com/models.huggingface.co/biggan"
  return Variant(
    url=f"{folder}/biggan-deep-{size}-pytorch_model.bin",
    settings={"layers": layers, "eps": 1e-4},
  )


VARIANTS = {
  "biggan-deep-128": _published(128, 16, 16, 8, 4, 2, 1),
  "biggan-deep-256": _published(256, 16, 16, 8, 8, 4, 2, 1),
  "biggan-deep-512": _published(512, 16, 16, 8, 8, 4, 2, 1, 1),
}

_GIVE_SETTINGS = (
  f"give --variant={' or --variant='.join(VARIANTS)} for the files published there, or --config "
  "with the config.json beside the checkpoint"
)
_GIVE_STUDIOGAN_SETTINGS = "pass the config that this checkpoint was trained with as --config=FILE"


def convert(checkpoint: Mapping, settings: Mapping[str, Any]) -> tuple[str, dict, dict]:
  """Converts Hugging Face's BigGAN-deep.

  Args:
    checkpoint: the state dict, `{'embeddings.weight': ...}`.
    settings: `layers` and `eps`. `layers` holds `[whether the block doubles the resolution, input
      channels, output channels]` per block, with channels as multiples of `channel_width`. `eps` is
      the epsilon of the batch norms. The other entries of upstream's config.json are optional and
      must match the arrays.

  Returns:
    The architecture's name, its config (see `unseg_jax.generators.biggan_deep.build`), and its
    float32 variables `{'params': {'embed', 'project', 'layer_0', ... 'norm', 'to_rgb'}}`. Every
    norm also holds its statistics, `mean` and `variance` `[51, channels]`.

  Raises:
    ValueError: a setting is missing or unknown, or contradicts the checkpoint; a key is missing or
      unexpected; or an array differs from upstream's format.
  """
  _check_settings(settings)
  state = StateDict(checkpoint)
  latent_size, num_classes = (state.size("embeddings.weight", axis) for axis in (0, 1))
  condition_size = 2 * latent_size  # The latent, followed by the class embedding of equal size.
  bottom = state.size("generator.gen_z.bias") // _NUM_PIXELS
  kinds, features = _find_layers(state, _HUGGING_FACE, bottom)
  take_weight = functools.partial(state_dict.torch_spectral_norm, state)

  def take_statistics(prefix, channels):
    return {
      "mean": state.take(f"{prefix}.running_means", _NUM_STATISTICS, channels),
      "variance": state.take(f"{prefix}.running_vars", _NUM_STATISTICS, channels),
    }

  def take_norm(prefix, channels):
    scale, offset = (
      take_weight(f"{prefix}.{name}", channels, condition_size) for name in ("scale", "offset")
    )
    # Mean 0 and variance 1, because the statistics are folded once the truncation is known.
    norm = state_dict.conditional_affine(scale, offset, np.zeros(channels), np.ones(channels), 0)
    return norm | take_statistics(prefix, channels)

  params = _take_layers(state, _HUGGING_FACE, kinds, features, take_weight, take_norm)
  params["embed"] = {"embedding": state.take("embeddings.weight", latent_size, num_classes).T}
  params["project"] = state_dict.dense(
    take_weight("generator.gen_z", _NUM_PIXELS * bottom, condition_size),
    state.take("generator.gen_z.bias", _NUM_PIXELS * bottom),
  )
  channels = features[-1]
  params["norm"] = {
    "scale": state.take("generator.bn.weight", channels),
    "bias": state.take("generator.bn.bias", channels),
    **take_statistics("generator.bn", channels),
  }
  # The layer keeps the number of channels, but upstream uses only the first three.
  params["to_rgb"] = state_dict.convolution(
    take_weight("generator.conv_to_rgb", channels, channels, 3, 3)[:_CHANNELS],
    state.take("generator.conv_to_rgb.bias", channels)[:_CHANNELS],
  )
  state.finish()

  ups = [up for up, _, _ in settings["layers"]]
  ends = [[before // channels, after // channels] for before, after in _block_ends(kinds, features)]
  if [[before, after] for _, before, after in settings["layers"]] != ends:
    raise InvalidValue(
      f"setting layers describes a network with {len(ups)} blocks or other channels, expected "
      f"{len(ends)} blocks with the channels {ends}: {_GIVE_SETTINGS}"
    )
  expected = {
    "attention_layer_position": kinds.index("attention") if "attention" in kinds else None,
    "channel_width": channels,
    "class_embed_dim": latent_size,
    "n_stats": _NUM_STATISTICS,
    "num_classes": num_classes,
    "output_dim": 4 * 2 ** sum(ups),
    "z_dim": latent_size,
  }
  _check_agreement(settings, expected, _GIVE_SETTINGS)
  config = {
    **_config(latent_size, num_classes, latent_size, kinds, features, ups),
    "truncation": _TRUNCATION,
    "epsilon": settings["eps"],
  }
  return "biggan_deep", config, {"params": state_dict.as_float32(params)}


def studiogan_variables(state: StateDict, settings: Mapping[str, Any]) -> tuple[dict, dict]:
  """Converts StudioGAN's `big_resnet_deep` with folded batch norms, and finishes its state dict.

  Args:
    state: its arrays, `linear0.bias` and so on.
    settings: the flat entries of upstream's JSON config, which may be empty. `G_depth` is the
      number of blocks per resolution (default 2). Other entries about the network must match the
      arrays; the rest is ignored.

  Returns:
    Config and variables as from `convert`, but with `truncation` None and without statistics.

  Raises:
    ValueError: a setting contradicts the network; a key is missing or unexpected; or an array
      differs from upstream's format.
  """
  has_spectral_norm = any(key.endswith(".weight_orig") for key in state.keys())
  num_classes, class_size = (state.size("shared.weight", axis) for axis in (0, 1))
  condition_size = state.size(f"linear0.weight{'_orig' * has_spectral_norm}", 1)
  bottom = state.size("linear0.bias") // _NUM_PIXELS
  kinds, features = _find_layers(state, _STUDIOGAN, bottom)

  def take_weight(prefix, *shape):
    if has_spectral_norm:
      return state_dict.torch_spectral_norm(state, prefix, *shape)
    return state.take(f"{prefix}.weight", *shape)

  def take_of_condition(prefix, size):
    # Upstream's layers receive the class, then the latent. Ours receive the latent first.
    return np.roll(take_weight(prefix, size, condition_size), -class_size, axis=1)

  def take_norm(prefix, channels):
    scale, offset = (take_of_condition(f"{prefix}.{name}", channels) for name in ("gain", "bias"))
    mean, variance = (
      state.take(f"{prefix}.bn.{name}", channels) for name in ("running_mean", "running_var")
    )
    return state_dict.conditional_affine(scale, offset, mean, variance, _STUDIOGAN_EPSILON)

  params = _take_layers(state, _STUDIOGAN, kinds, features, take_weight, take_norm)
  params["embed"] = {"embedding": state.take("shared.weight", num_classes, class_size)}
  # Upstream's initial activations are [C, 4, 4].
  order = np.arange(_NUM_PIXELS * bottom).reshape(bottom, _NUM_PIXELS).T.ravel()
  params["project"] = state_dict.dense(
    take_of_condition("linear0", _NUM_PIXELS * bottom)[order],
    state.take("linear0.bias", _NUM_PIXELS * bottom)[order],
  )
  params["norm"] = state_dict.take_affine(state, "bn4", features[-1], _STUDIOGAN_EPSILON)
  image_channels = state.size_of_pictures("conv2d5.bias")
  params["to_rgb"] = state_dict.convolution(
    take_weight("conv2d5", image_channels, features[-1], 3, 3),
    state.take("conv2d5.bias", image_channels),
  )
  state.finish()

  num_blocks, depth = kinds.count("block"), settings.get("G_depth", _STUDIOGAN_DEPTH)
  if depth not in range(1, num_blocks + 1) or num_blocks % depth:
    raise InvalidValue(
      f"setting G_depth is {depth!r}, expected a divisor of the number of blocks, {num_blocks}: "
      f"{_GIVE_STUDIOGAN_SETTINGS}"
    )
  latent_size = condition_size - class_size
  expected = {
    "activation_fn": "ReLU",
    "img_size": 4 * 2 ** (num_blocks // depth),
    "num_classes": num_classes,
    "shared_dim": class_size,
    "z_dim": latent_size,
  }
  _check_agreement(settings, expected, _GIVE_STUDIOGAN_SETTINGS)
  ups = [i % depth == depth - 1 for i in range(num_blocks)]
  config = {
    **_config(latent_size, num_classes, class_size, kinds, features, ups),
    "learned_shortcuts": "shortcut" in params["layer_0"],
    "truncation": None,
    **state_dict.image_channels(image_channels),
  }
  return config, {"params": state_dict.as_float32(params)}


def _check_settings(settings: Mapping[str, Any]) -> None:
  """Raises a ValueError if Hugging Face's settings are incomplete or have wrong types."""
  state_dict.check_settings(settings, _SETTINGS)
  for name in _NEEDED_SETTINGS:
    if name not in settings:
      raise InvalidValue(
        f"the setting {name} is missing and cannot be inferred from the arrays: {_GIVE_SETTINGS}"
      )
  layers, epsilon = settings["layers"], settings["eps"]
  if not isinstance(layers, list | tuple) or not all(map(_is_block, layers)):
    raise InvalidValue(
      f"setting layers is {layers!r}, expected a list of [true or false, channels in, channels "
      f"out], one for each block: {_GIVE_SETTINGS}"
    )
  if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 < epsilon < 1:
    raise InvalidValue(f"setting eps is {epsilon!r}, expected a number between 0 and 1")


def _is_block(layer: Any) -> bool:
  return isinstance(layer, list | tuple) and len(layer) == 3 and isinstance(layer[0], bool)


def _check_agreement(settings: Mapping[str, Any], expected: Mapping[str, Any], hint: str) -> None:
  for name, value in expected.items():
    if settings.get(name, value) != value:
      raise InvalidValue(f"setting {name} is {settings[name]!r}, expected {value!r}: {hint}")


def _find_layers(
  state: StateDict, names: Mapping[str, Any], bottom: int
) -> tuple[list[str], list[int]]:
  """Returns each layer's kind, "block" or "attention", and the channels before and after layers."""

  def holds(prefix):
    return any(key.startswith(f"{prefix}.") for key in state.keys())

  kinds: list[str] = []
  features = [bottom]
  while holds(prefix := names["layer"].format(len(kinds))):
    if holds(f"{prefix}.{names['query']}"):
      kinds.append("attention")
      features.append(features[-1])
    else:
      kinds.append("block")
      features.append(state.size(f"{prefix}.{names['convolutions'][-1]}.bias"))
  return kinds, features


def _block_ends(kinds: Sequence[str], features: Sequence[int]) -> list[tuple[int, int]]:
  """Returns the input and output channels of each block."""
  ends = zip(kinds, itertools.pairwise(features), strict=True)
  return [pair for kind, pair in ends if kind == "block"]


def _take_layers(
  state: StateDict,
  names: Mapping[str, Any],
  kinds: Sequence[str],
  features: Sequence[int],
  take_weight: Callable[..., np.ndarray],
  take_norm: Callable[[str, int], dict],
) -> dict[str, dict]:
  """Takes all blocks and attention layers as the parameters of `BigGanDeep`'s layers."""
  has_shortcuts = any(f".{_SHORTCUT}." in key for key in state.keys())

  def take_block(prefix, size_in, size_out):
    sizes = (size_in, *[size_in // _REDUCTION] * 3, size_out)
    params = {}
    for i, side in enumerate((1, 3, 3, 1)):
      params[f"norm_{i}"] = take_norm(f"{prefix}.{names['norms'][i]}", sizes[i])
      name = f"{prefix}.{names['convolutions'][i]}"
      weight = take_weight(name, sizes[i + 1], sizes[i], side, side)
      bias = state.take(f"{name}.bias", sizes[i + 1])
      params[f"conv_{i}"] = (
        state_dict.dense(weight[:, :, 0, 0], bias)
        if side == 1
        else state_dict.convolution(weight, bias)
      )
    if has_shortcuts:
      name = f"{prefix}.{_SHORTCUT}"
      weight = take_weight(name, size_out, size_in, 1, 1)[:, :, 0, 0]
      params["shortcut"] = state_dict.dense(weight, state.take(f"{name}.bias", size_out))
    return params

  def take_attention(prefix, size, _):
    shapes = {
      "query": (size // 8, size),
      "key": (size // 8, size),
      "value": (size // 2, size),
      "out": (size, size // 2),
    }
    weights = {
      name: take_weight(f"{prefix}.{names[name]}", *shape, 1, 1)[:, :, 0, 0]
      for name, shape in shapes.items()
    }
    weights["out"] = weights["out"] * state.take(f"{prefix}.{names['out_weight']}", 1)
    return {name: state_dict.dense(weight) for name, weight in weights.items()}

  take = {"block": take_block, "attention": take_attention}
  return {
    f"layer_{i}": take[kind](names["layer"].format(i), *ends)
    for i, (kind, ends) in enumerate(zip(kinds, itertools.pairwise(features), strict=True))
  }


def _config(
  latent_size: int,
  num_classes: int,
  class_size: int,
  kinds: Sequence[str],
  features: Sequence[int],
  ups: Sequence[bool],
) -> dict[str, Any]:
  """Returns the attributes of `BigGanDeep`, and `latent_size`."""
  block_kinds = iter("up" if up else "same" for up in ups)
  return {
    "latent_size": latent_size,
    "num_classes": num_classes,
    "class_size": class_size,
    "bottom_features": features[0],
    "layers": [
      [kind if kind == "attention" else next(block_kinds), channels]
      for kind, channels in zip(kinds, features[1:], strict=True)
    ],
  }
