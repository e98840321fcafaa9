"""BigGAN-deep (Brock, Donahue, Simonyan, arXiv 1809.11096, appendix B).

The module covers the weights published by Hugging Face's `pytorch-pretrained-BigGAN` and those
trained by StudioGAN's `big_resnet_deep`. Conversion divides out spectral norms. Hugging Face's
batch norms have statistics for several truncations. The generator file keeps all of them, and
`build` folds those of the selected truncation.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from unseg_jax.array_types import AnyArray, Array, Float, Int
from unseg_jax.errors import InvalidValue
from unseg_jax.generators import layers
from unseg_jax.generators.base import Generator, SampleLatents, Variables, apply, normal_latents

# Config entries that can be overridden at load time.
OPTIONS = ("truncation",)

_REDUCTION = 4  # A block's inner layers have a quarter of the channels of its input.
_TRUNCATION_BOUND = 2.0  # Latents are N(0, 1) truncated to [-2, 2], then scaled.


class Block(nn.Module):
  """A residual block, which doubles the resolution if `up` is set.

  The shortcut has no weights, and keeps the first `features` channels, unless it is learned.
  """

  features: int
  up: bool
  learned_shortcut: bool = False

  @nn.compact
  def __call__(
    self, x: Float[Array, "n h w c"], condition: Float[Array, "n d"]
  ) -> Float[Array, "n {1+self.up}*h {1+self.up}*w {self.features}"]:
    inner = x.shape[-1] // _REDUCTION

    def activate(i, y):
      return nn.relu(layers.ConditionalAffine(name=f"norm_{i}")(y, condition))

    y = nn.Dense(inner, name="conv_0")(activate(0, x))
    y = activate(1, y)
    if self.learned_shortcut:
      shortcut = nn.Dense(self.features, name="shortcut")(x)
    else:
      shortcut = x[..., : self.features]
    if self.up:
      y = layers.UpsampledConvolution(inner, name="conv_1")(y)
      shortcut = layers.upsample_nearest(shortcut)
    else:
      y = nn.Conv(inner, (3, 3), name="conv_1")(y)
    y = nn.Conv(inner, (3, 3), name="conv_2")(activate(2, y))
    y = nn.Dense(self.features, name="conv_3")(activate(3, y))
    return y + shortcut


class BigGanDeep(nn.Module):
  """Maps latents and labels to images in [-1, 1].

  Attributes:
    num_classes: number of classes.
    class_size: size of a class embedding, which is appended to the latent.
    bottom_features: channels of the initial 4 x 4 activations.
    layers: `(kind, features)` of each layer. The kind "same" is a residual block that keeps the
      resolution, "up" is one that doubles it, and "attention" is self-attention.
    image_channels: channels of the last layer: 1 (grey), 3 (RGB) or 4 (RGBA).
    learned_shortcuts: whether the shortcuts of the blocks have weights.
  """

  num_classes: int
  class_size: int
  bottom_features: int
  layers: tuple[tuple[str, int], ...]
  image_channels: int = 3
  learned_shortcuts: bool = False

  @nn.compact
  def __call__(
    self, latents: Float[AnyArray, "n l"], labels: Int[AnyArray, " n"]
  ) -> Float[Array, "n s s 3"]:
    classes = nn.Embed(self.num_classes, self.class_size, name="embed")(labels)
    condition = jnp.concatenate([latents, classes.astype(latents.dtype)], axis=-1)
    x = nn.Dense(4 * 4 * self.bottom_features, name="project")(condition)
    x = x.reshape(-1, 4, 4, self.bottom_features)  # [N, 4, 4, C]
    # The gradient recomputes the interior of layers, which would take 14 GB at 256 x 256 pixels and
    # batch 32. It stores only the 4 GB between layers.
    attention, block = nn.remat(layers.SelfAttention), nn.remat(Block)
    for i, (kind, features) in enumerate(self.layers):
      if kind == "attention":
        x = attention(name=f"layer_{i}")(x)
      else:
        up, learned = kind == "up", self.learned_shortcuts
        x = block(features, up, learned, name=f"layer_{i}")(x, condition)
    x = nn.relu(layers.Affine(name="norm")(x))
    return layers.as_rgb(jnp.tanh(nn.Conv(self.image_channels, (3, 3), name="to_rgb")(x)))


def build(config: Mapping[str, Any], variables: Variables, identity: str) -> Generator:
  """Builds the generator of a converted file.

  Args:
    config: `latent_size, num_classes, class_size, bottom_features, layers` (see `BigGanDeep`), and
      `truncation`. If the batch norms have several sets of statistics, `truncation` is in (0, 1]
      and `epsilon` is theirs. If they have one set, it is already folded and `truncation` is None.
    variables: `{'params': ...}`. With several sets of statistics, each norm holds its `mean` and
      `variance` `[n, channels]` at n truncations, evenly spaced over [0, 1].
    identity: identifies the weights.

  Raises:
    ValueError: the truncation is not in (0, 1], or the network does not support truncation.
  """
  truncation, latent_size = config["truncation"], config["latent_size"]
  if "mean" in variables["params"]["norm"]:
    is_number = isinstance(truncation, int | float) and not isinstance(truncation, bool)
    if not is_number or not 0 < truncation <= 1:
      raise InvalidValue(f"truncation is {truncation!r}, expected a number above 0 and at most 1")
    variables = {"params": _fold_statistics(variables["params"], truncation, config["epsilon"])}
    sample_latents = _truncated_latents(latent_size, truncation)
  elif truncation is not None:
    raise InvalidValue(
      f"truncation is {truncation!r}, expected none, because this network has only one set of "
      "statistics: omit the option"
    )
  else:
    sample_latents = normal_latents((latent_size,))
  module = BigGanDeep(
    num_classes=config["num_classes"],
    class_size=config["class_size"],
    bottom_features=config["bottom_features"],
    layers=tuple((kind, features) for kind, features in config["layers"]),
    image_channels=config.get("image_channels", 3),
    learned_shortcuts=config.get("learned_shortcuts", False),
  )

  def generate(variables, latents, labels):
    return apply(module, variables, latents, labels).astype(jnp.float32)

  return Generator(
    variables=variables,
    image_size=4 * 2 ** sum(kind == "up" for kind, _ in module.layers),
    latent_shape=(latent_size,),
    num_classes=config["num_classes"],
    sample_latents=sample_latents,
    generate=generate,
    identity=identity,
  )


def _truncated_latents(size: int, truncation: float | int) -> SampleLatents:
  bound = _TRUNCATION_BOUND
  return lambda key, n: (
    truncation * jax.random.truncated_normal(key, -bound, bound, (n, size), jnp.float32)
  )


def _fold_statistics(params: Mapping[str, Any], truncation: float | int, epsilon: float) -> dict:
  """Folds the statistics of every norm at a truncation into its scale and bias."""
  if "mean" not in params:
    return {
      name: _fold_statistics(item, truncation, epsilon) if isinstance(item, Mapping) else item
      for name, item in params.items()
    }
  mean, variance = (_interpolate(params[name], truncation) for name in ("mean", "variance"))
  gain = 1 / np.sqrt(variance + epsilon)
  # A ConditionalAffine has kernels and biases here, an Affine has arrays. Channels are always last.
  scale = jax.tree.map(lambda scale: scale * gain, params["scale"])
  bias = jax.tree.map(lambda bias, scale: bias - mean * scale, params["bias"], scale)
  return jax.tree.map(np.float32, {"scale": scale, "bias": bias})


def _interpolate(statistics: np.ndarray, truncation: float | int) -> np.ndarray:
  """Interpolates float64 statistics `[channels]` at a truncation in (0, 1].

  `statistics` is `[n, channels]`, evenly spaced over [0, 1]. The result must equal that of
  `BigGANBatchNorm` in `pytorch-pretrained-BigGAN`, including two oddities. First, the weights of
  the two neighbours are swapped, compared with linear interpolation. Second, the index is not
  rounded: 0.58 is slightly below the 29th of 50 steps and therefore uses the 28th.
  """
  fraction, index = math.modf(truncation / (1 / (len(statistics) - 1)))
  lower = statistics[int(index)].astype(np.float64)
  if not fraction:
    return lower
  return fraction * lower + (1 - fraction) * statistics[int(index) + 1]
