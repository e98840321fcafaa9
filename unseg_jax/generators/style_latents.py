"""Latents of StyleGANs: noise and a class become `w`, truncated, a row for each layer.

The mapping network that StyleGAN2, StyleGAN3 and CIPS share (arXiv 1912.04958, upstream's
`MappingNetwork`).
"""

import math
import numbers
from collections.abc import Mapping as MappingType
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unseg_jax.array_types import AnyArray, Array, Float, Int
from unseg_jax.errors import InvalidValue
from unseg_jax.generators import layers
from unseg_jax.generators.base import SampleLatents, apply

ALL = "all"  # In place of classes.

_EPSILON = 1e-8  # added to the mean square that the noise is divided by the root of


class Mapping(nn.Module):
  """Maps noise and classes to truncated latents.

  Attributes:
    features: features of every layer; the last is `w_dim`.
    num_ws: how many rows a latent has.
    num_classes: number of classes, or 0 if the network is unconditional.
    class_features: length of a class's embedding, normalised when a checkpoint is converted.
    truncation_psi: how far from the average latent a latent may go: 1 leaves it where it is, 0
      moves all to the average.
    truncation_cutoff: how many rows are truncated, from the first; None for all.
  """

  features: tuple[int, ...]
  num_ws: int
  num_classes: int = 0
  class_features: int = 0
  truncation_psi: float | int = 0.5
  truncation_cutoff: int | None = 8

  @nn.compact
  def __call__(
    self, noise: Float[AnyArray, "n z_dim"], labels: Int[AnyArray, " n"] | None
  ) -> Float[Array, "n {self.num_ws} w_dim"]:
    x = jnp.asarray(noise)
    x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + _EPSILON)
    if self.num_classes:
      classes = nn.Embed(self.num_classes, self.class_features, name="classes")(labels)
      x = jnp.concatenate((x, classes), axis=-1)
    for i, size in enumerate(self.features):
      x = layers.leaky_relu(nn.Dense(size, name=f"dense_{i}")(x))
    average = self.param("average", nn.initializers.zeros, x.shape[-1:], jnp.float32)
    if self.truncation_psi != 1:
      truncated = average[None] + self.truncation_psi * (x - average[None])
    else:
      truncated = x  # without rounding
    cutoff = self.num_ws if self.truncation_cutoff is None else self.truncation_cutoff
    is_truncated = jnp.arange(self.num_ws, dtype=jnp.int32)[None, :, None] < cutoff
    return jnp.where(is_truncated, truncated[:, None], x[:, None])


def latent_sampler(config: MappingType[str, Any], num_ws: int, params: Any) -> SampleLatents:
  """Returns a sampler of mapped and truncated latents, each of a class drawn uniformly.

  Args:
    config: `z_dim`, the attributes of `Mapping`, its `features` as `mapping_widths`, and perhaps
      the option `label`, the classes to draw from.
    num_ws: how many rows a latent has.
    params: of the mapping network.

  Raises:
    ValueError: the option `label` is none of the network's classes.
  """
  classes = jnp.asarray(_find_classes(config), jnp.int32)
  mapping = Mapping(
    features=tuple(config["mapping_widths"]),
    num_ws=num_ws,
    num_classes=config["num_classes"],
    class_features=config["class_features"],
    truncation_psi=config["truncation_psi"],
    truncation_cutoff=config["truncation_cutoff"],
  )

  def sample_latents(key, n):
    noise_key, label_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, (n, config["z_dim"]), jnp.float32)
    labels = classes[jax.random.randint(label_key, (n,), 0, len(classes), jnp.int32)]
    return apply(mapping, {"params": params}, noise, labels)

  return sample_latents


def _find_classes(config: MappingType[str, Any]) -> Sequence[int]:
  """The classes that the option `label` names: one, several, or all; class 0 if there is none."""
  # Files of the first versions do not have the option.
  label, num_classes = config.get("label", ALL), config["num_classes"]
  classes = tuple(label) if isinstance(label, (list, tuple)) else (label,)
  if classes in ((), (None,), (ALL,)):
    return range(max(num_classes, 1))
  if not num_classes:
    raise InvalidValue(
      f"config.generator_options.label={label!r}: this network has no classes; leave the option out"
    )
  for each in classes:
    is_integer = isinstance(each, numbers.Integral) and not isinstance(each, bool)
    if not is_integer or not 0 <= each < num_classes:
      raise InvalidValue(
        f"config.generator_options.label={label!r}: expected a class from 0 to {num_classes - 1}, "
        f"several such as (0, 1), or {ALL!r}"
      )
  return classes


def check_truncation(config: MappingType[str, Any]) -> None:
  """Raises a ValueError unless `truncation_psi` and `truncation_cutoff` are what they should be."""
  psi, cutoff = config["truncation_psi"], config["truncation_cutoff"]
  is_number = isinstance(psi, numbers.Real) and not isinstance(psi, bool)
  if not is_number or not math.isfinite(psi):
    problem = f"truncation_psi={psi!r}: expected a number, such as 0.5, or 1 for no truncation"
  elif cutoff is not None and (
    isinstance(cutoff, bool) or not isinstance(cutoff, numbers.Integral) or cutoff < 0
  ):
    problem = (
      f"truncation_cutoff={cutoff!r}: expected how many rows of w to truncate, such as 8, or None "
      "for all"
    )
  else:
    return
  raise InvalidValue(f"config.generator_options.{problem}")


def check_noise(config: MappingType[str, Any], known: Sequence[str]) -> None:
  """Raises a ValueError unless the option `noise` is one of those that an architecture knows."""
  if config["noise"] not in known:
    raise InvalidValue(
      f"config.generator_options.noise={config['noise']!r}: expected one of {', '.join(known)}"
    )
