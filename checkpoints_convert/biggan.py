"""BigGAN as saved by ajbrock/BigGAN-PyTorch, including the weights of BigBiGAN.

`convert_network` serves every upstream of the architecture "biggan".
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from checkpoints_convert import state_dict
from checkpoints_convert.variants import Variant
from unseg_jax.errors import InvalidValue

_SIDE = 4  # Side of the initial activations.
_OUTPUT_EPSILON = 1e-5  # Of the last batch norm; upstream's BN_eps only applies to the blocks.

VARIANTS = {
  "bigbigan-128": Variant(
    url="https://github.com/greeneggsandyaml/tmp/releases/download/0.0.1/BigBiGAN_x1.pth",
    settings={"unconditional": True, "BN_eps": 1e-4, "SN_eps": 1e-4},
  ),
}
# Keys that only checkpoints of this format contain.
SIGNATURE = ("linear.u0", "blocks.0.0.conv_sc.u0", "output_layer.2.u0")
PREFERRED_ENTRY: str | None = None


@dataclasses.dataclass(frozen=True)
class Layout:
  """The location of arrays in a checkpoint of the architecture "biggan".

  Attributes:
    blocks: prefix of every residual block, from the lowest resolution to the highest.
    attention: maps block numbers, from 0, to the prefix of the self-attention after the block.
    is_shared: whether all batch norms share one class embedding, `shared.weight`; otherwise each
      batch norm has its own, or there are no classes.
    has_classes: whether the network has classes. Without, the latent alone conditions the batch
      norms, or nothing does.
    weight: last part of the key of a trained weight.
    take_weight: maps `(state, prefix, *shape)` to the weight that the network uses.
    epsilons: the epsilons added to the variance in the blocks' batch norms and in the last one.
    project: prefix of the first layer.
    convolutions: upstream's names of a block's `conv_1`, `conv_2` and `shortcut`.
    condition: names of the layers that compute the scale and offset of a conditional batch norm.
    condition_axis: axis of the condition in their weights: 1 for linear maps, 0 for embeddings.
    statistics: names of the mean and variance of a conditional batch norm.
    attention_layers: upstream's names of `query`, `key`, `value` and `out`.
    attention_weight: name and shape of the learned weight of the attention's result.
    norm: keys of the last batch norm's scale, offset, mean and variance.
    out: prefix of the last layer.
  """

  blocks: tuple[str, ...]
  attention: Mapping[int, str]
  is_shared: bool
  has_classes: bool
  weight: str
  take_weight: Callable[..., np.ndarray]
  epsilons: tuple[float, float]
  project: str
  convolutions: Mapping[str, str]
  condition: tuple[str, str]
  condition_axis: int
  statistics: tuple[str, str]
  attention_layers: Mapping[str, str]
  attention_weight: tuple[str, tuple[int, ...]]
  norm: tuple[str, ...]
  out: str


def convert(checkpoint: Mapping, settings: Mapping[str, Any]) -> tuple[str, dict, dict]:
  """Converts a BigGAN generator whose batch norms share a class embedding.

  Args:
    checkpoint: the state dict of upstream's `G` or `G_ema`: `{'shared.weight': ...}`.
    settings: upstream's options `BN_eps` and `SN_eps`, and `unconditional`. The latter is true if
      the network is always called with label 0, like BigBiGAN (default: false).

  Returns:
    The architecture's name, its config and its float32 variables. The config holds the attributes
    of `unseg_jax.generators.biggan.BigGan` and `latent_size`. All but `num_classes` are inferred
    from shapes.

  Raises:
    ValueError: a setting is missing, unknown or out of range; a key is missing or unexpected; or an
      array differs from upstream's format.
  """
  state_dict.check_settings(settings, ("BN_eps", "SN_eps", "unconditional"))
  norm_epsilon, spectral_epsilon = (_epsilon(settings, name) for name in ("BN_eps", "SN_eps"))
  unconditional = settings.get("unconditional", False)
  if not isinstance(unconditional, bool):
    raise InvalidValue(f"setting unconditional is {unconditional!r}, expected true or false")

  # Weights from TensorFlow may store a scalar as [1], which PyTorch also loads.
  arrays = {
    key: array.reshape(()) if str(key).endswith(".gamma") and np.shape(array) == (1,) else array
    for key, array in checkpoint.items()
  }
  state = state_dict.StateDict(arrays)
  state.ignore(".sv0")  # Singular values, stored only for inspection.
  blocks = find_blocks(state)
  layout = Layout(
    blocks=tuple(f"{block}.0" for block in blocks),
    attention={
      i: f"{block}.1"
      for i, block in enumerate(blocks)
      if any(key.startswith(f"{block}.1.") for key in state.keys())
    },
    is_shared=True,
    has_classes=True,
    weight="weight",
    take_weight=lambda *args: spectral_norm(*args, epsilon=spectral_epsilon),
    epsilons=(norm_epsilon, _OUTPUT_EPSILON),
    project="linear",
    convolutions={"conv_1": "conv1", "conv_2": "conv2", "shortcut": "conv_sc"},
    condition=("gain", "bias"),
    condition_axis=1,
    statistics=("stored_mean", "stored_var"),
    attention_layers={"query": "theta", "key": "phi", "value": "g", "out": "o"},
    attention_weight=("gamma", ()),
    norm=tuple(f"output_layer.0.{name}" for name in ("gain", "bias", "stored_mean", "stored_var")),
    out="output_layer.2",
  )
  config, variables = convert_network(state, layout, unconditional)
  return "biggan", config, variables


def _epsilon(settings: Mapping[str, Any], name: str) -> float:
  if name not in settings:
    raise InvalidValue(
      f"the setting {name} is missing, and the checkpoint does not hold it: give "
      f"--variant={' or --variant='.join(VARIANTS)} for that file, or the values of its training "
      'as --config=FILE with JSON such as {"BN_eps": 1e-5, "SN_eps": 1e-6}, which are '
      "the values in upstream's launch scripts"
    )
  value = settings[name]
  if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
    raise InvalidValue(f"setting {name} is {value!r}, expected a number between 0 and 1")
  return float(value)


def spectral_norm(
  state: state_dict.StateDict, prefix: str, *shape: int, epsilon: float
) -> np.ndarray:
  """Takes a weight under BigGAN-PyTorch's own spectral norm (`power_iteration` in its layers.py).

  Even in evaluation mode, upstream makes one power iteration from the stored u. The weight is thus
  `W / (v W^T u')` with `v = normalised(u W)` and `u' = normalised(v W^T)`, with W as a matrix.
  """

  def normalised(x):
    return x / max(np.linalg.norm(x), epsilon)

  weight = state.take(f"{prefix}.weight", *shape)
  u = state.take(f"{prefix}.u0", 1, shape[0])[0]
  matrix = weight.reshape(shape[0], -1)
  v = normalised(u @ matrix)
  sigma = (v @ matrix.T) @ normalised(v @ matrix.T)
  return weight / sigma if sigma else weight  # Zero only if an array is wrong or missing.


def find_blocks(state: state_dict.StateDict) -> list[str]:
  """Returns the prefixes `blocks.0`, `blocks.1`, ... in the keys of a network."""
  prefixes = {".".join(key.split(".")[:2]) for key in state.keys()}
  numbered = (f"blocks.{i}" for i in itertools.count())
  return list(itertools.takewhile(prefixes.__contains__, numbered))


def convert_network(
  state: state_dict.StateDict, layout: Layout, unconditional: bool = False
) -> tuple[dict, dict]:
  """Converts a network of the architecture "biggan", and finishes its state dict.

  Args:
    state: the network's arrays.
    layout: the location of the arrays.
    unconditional: whether to convert to a network without classes that equals this network for
      label 0.

  Returns:
    Config and float32 variables, as expected by `unseg_jax.generators.biggan.build`.

  Raises:
    ValueError: a key is missing or unexpected, an array differs from upstream's format, or the
      batch norms of an unconditional network would have no input.
  """
  latent_size = state.size(f"{layout.project}.{layout.weight}", 1)
  # At least 1, so that shapes are valid until the error for a wrong file is raised.
  features = [max(1, state.size(f"{layout.project}.bias") // _SIDE**2)]
  convolution = layout.convolutions["conv_1"]
  features += [state.size(f"{block}.{convolution}.bias") for block in layout.blocks]
  condition_key = f"blocks.0.0.bn1.{layout.condition[0]}.{layout.weight}"
  num_classes: int | None
  if layout.is_shared:
    num_classes, shared_size = (state.size("shared.weight", axis) for axis in (0, 1))
    shared = state.take("shared.weight", num_classes, shared_size)
    hierarchical = state.size(condition_key, 1) > shared_size
    condition_size = shared_size + (latent_size if hierarchical else 0)
  elif not layout.has_classes:
    num_classes, shared_size, hierarchical = None, None, condition_key in state
    condition_size = latent_size
  else:
    num_classes, shared_size = state.size(condition_key, layout.condition_axis), None
    condition_size, hierarchical = num_classes, False

  def take_norm(prefix, channels):
    if not (layout.has_classes or hierarchical):
      return state_dict.take_affine(state, prefix, channels, layout.epsilons[0])
    scale, offset = (
      layout.take_weight(state, f"{prefix}.{name}", channels, condition_size)
      if layout.condition_axis
      else layout.take_weight(state, f"{prefix}.{name}", condition_size, channels).T
      for name in layout.condition
    )
    mean, variance = (state.take(f"{prefix}.{name}", channels) for name in layout.statistics)
    norm = state_dict.conditional_affine(scale, offset, mean, variance, layout.epsilons[0])
    if unconditional:
      norm = {name: _fix_first_inputs(layer, shared[0]) for name, layer in norm.items()}
    return norm

  def take_convolution(prefix, *shape):
    weight = layout.take_weight(state, prefix, *shape)
    return state_dict.convolution(weight, state.take(f"{prefix}.bias", shape[0]))

  params: dict[str, dict[str, Any]] = {
    "project": _take_project(state, layout, features[0], latent_size)
  }
  for i, (prefix, (size_in, size_out)) in enumerate(
    zip(layout.blocks, itertools.pairwise(features), strict=True)
  ):
    names = {ours: f"{prefix}.{name}" for ours, name in layout.convolutions.items()}
    shortcut = take_convolution(names["shortcut"], size_out, size_in, 1, 1)
    params[f"block_{i}"] = {
      "norm_1": take_norm(f"{prefix}.bn1", size_in),
      "conv_1": take_convolution(names["conv_1"], size_out, size_in, 3, 3),
      "norm_2": take_norm(f"{prefix}.bn2", size_out),
      "conv_2": take_convolution(names["conv_2"], size_out, size_out, 3, 3),
      "shortcut": shortcut | {"kernel": shortcut["kernel"][0, 0]},
    }
    if i in layout.attention:
      params[f"attention_{i}"] = _take_attention(state, layout, layout.attention[i], size_out)
  scale, offset, mean, variance = (state.take(key, features[-1]) for key in layout.norm)
  params["norm"] = state_dict.affine(scale, offset, mean, variance, layout.epsilons[1])
  image_channels = state.size_of_pictures(f"{layout.out}.bias")
  params["out"] = take_convolution(layout.out, image_channels, features[-1], 3, 3)
  if layout.is_shared and not unconditional:
    params["shared"] = {"embedding": shared}
  state.finish()
  if unconditional and not hierarchical:
    raise InvalidValue(
      "the setting unconditional is true, but only the class conditions this network's batch "
      "norms: expected a network with hierarchical latents, or the setting false"
    )

  config = {
    "latent_size": latent_size * (len(features) if hierarchical else 1),
    "widths": features,
    "num_classes": None if unconditional else num_classes,
    "shared_size": None if unconditional else shared_size,
    "hierarchical": hierarchical,
    "attention": sorted(layout.attention),
    **state_dict.image_channels(image_channels),
  }
  return config, {"params": state_dict.as_float32(params)}


def _take_project(
  state: state_dict.StateDict, layout: Layout, channels: int, latent_size: int
) -> dict[str, np.ndarray]:
  """Takes the first layer and reorders its outputs from `[C, 4, 4]` to `[4, 4, C]`."""
  size = channels * _SIDE**2
  weight = layout.take_weight(state, layout.project, size, latent_size)
  bias = state.take(f"{layout.project}.bias", size)
  order = np.arange(size).reshape(channels, _SIDE**2).T.ravel()
  return state_dict.dense(weight[order], bias[order])


def _take_attention(
  state: state_dict.StateDict, layout: Layout, prefix: str, channels: int
) -> dict[str, dict[str, np.ndarray]]:
  """Takes a self-attention as the parameters of `layers.SelfAttention`."""
  inner, half = max(1, channels // 8), max(1, channels // 2)  # 0 only if the file is wrong.
  shapes = {
    "query": (inner, channels),
    "key": (inner, channels),
    "value": (half, channels),
    "out": (channels, half),
  }
  taken = {}
  for ours, shape in shapes.items():
    name = f"{prefix}.{layout.attention_layers[ours]}"
    taken[ours] = state_dict.dense(layout.take_weight(state, name, *shape, 1, 1)[:, :, 0, 0])
  name, weight_shape = layout.attention_weight
  weight = state.take(f"{prefix}.{name}", *weight_shape)
  taken["out"]["kernel"] = taken["out"]["kernel"] * weight
  return taken


def _fix_first_inputs(layer: Mapping[str, np.ndarray], inputs: np.ndarray) -> dict[str, np.ndarray]:
  """Folds the first inputs of a dense layer, which are constant, into its bias."""
  varied, fixed = layer["kernel"][len(inputs) :], layer["kernel"][: len(inputs)]
  return {"kernel": varied, "bias": layer["bias"] + inputs @ fixed}
