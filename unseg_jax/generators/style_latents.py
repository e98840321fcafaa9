"""Latents of StyleGANs: maps noise and a class to a truncated `w`, with one row per layer.

StyleGAN2, StyleGAN3 and CIPS share this mapping network (arXiv 1912.04958, upstream's
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

ALL = "all"  # Selects all classes.

_EPSILON = 1e-8  # Added to the mean square in the normalisation of the noise.


class Mapping(nn.Module):
  """Maps noise and classes to truncated latents.

  Attributes:
    features: features of every layer; the last is `w_dim`.
    num_ws: number of rows in a latent.
    num_classes: number of classes, or 0 if the network is unconditional.
    class_features: length of a class embedding, which conversion normalises.
    truncation_psi: factor of the distance to the average latent: 1 keeps a latent, 0 maps every
      latent to the average.
    truncation_cutoff: number of leading rows that are truncated; None truncates all rows.
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
      truncated = x  # Avoids rounding.
    cutoff = self.num_ws if self.truncation_cutoff is None else self.truncation_cutoff
    is_truncated = jnp.arange(self.num_ws, dtype=jnp.int32)[None, :, None] < cutoff
    return jnp.where(is_truncated, truncated[:, None], x[:, None])


def latent_sampler(config: MappingType[str, Any], num_ws: int, params: Any) -> SampleLatents:
  """Returns a sampler of mapped and truncated latents with uniformly sampled classes.

  Args:
    config: `z_dim`, the attributes of `Mapping` with `features` named `mapping_widths`, and
      optionally `label`, the classes to sample from.
    num_ws: number of rows in a latent.
    params: parameters of the mapping network.

  Raises:
    ValueError: the option `label` is not among the network's classes.
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
  """Returns the classes that the option `label` selects; class 0 for an unconditional network."""
  # The first versions of generator files lack the option.
  label, num_classes = config.get("label", ALL), config["num_classes"]
  classes = tuple(label) if isinstance(label, (list, tuple)) else (label,)
  if classes in ((), (None,), (ALL,)):
    return range(max(num_classes, 1))
  if not num_classes:
    raise InvalidValue(
      f"config.generator_options.label={label!r}: this network has no classes; omit the option"
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
  """Raises a ValueError unless `truncation_psi` and `truncation_cutoff` are valid."""
  psi, cutoff = config["truncation_psi"], config["truncation_cutoff"]
  is_number = isinstance(psi, numbers.Real) and not isinstance(psi, bool)
  if not is_number or not math.isfinite(psi):
    problem = f"truncation_psi={psi!r}: expected a number, such as 0.5, or 1 for no truncation"
  elif cutoff is not None and (
    isinstance(cutoff, bool) or not isinstance(cutoff, numbers.Integral) or cutoff < 0
  ):
    problem = (
      f"truncation_cutoff={cutoff!r}: expected the number of rows of w to truncate, such as 8, or "
      "None for all"
    )
  else:
    return
  raise InvalidValue(f"config.generator_options.{problem}")


def check_noise(config: MappingType[str, Any], known: Sequence[str]) -> None:
  """Raises a ValueError unless the architecture supports the option `noise`."""
  if config["noise"] not in known:
    raise InvalidValue(
      f"config.generator_options.noise={config['noise']!r}: expected one of {', '.join(known)}"
    )
