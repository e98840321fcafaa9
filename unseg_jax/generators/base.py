"""What a generator is: the same small frozen object for every architecture."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from unseg_jax.array_types import AnyArray, Array, Float, Int, Key
from unseg_jax.errors import InvalidValue

Variables = dict[str, Any]
# A generator's prior: (key, n) -> n latents.
SampleLatents = Callable[[Key[Array, ""], int], Float[Array, " n *latent_shape"]]
# (variables, latents, labels) -> images.
Generate = Callable[
  [Variables, Float[Array, " n *latent_shape"], Int[Array, " n"]], Float[Array, "n h w 3"]
]
DTYPES = ("float32", "bfloat16")


def normal_latents(latent_shape: tuple[int, ...]) -> SampleLatents:
  """Returns a sampler of float32 latents from N(0, 1)."""
  return lambda key, n: jax.random.normal(key, (n, *latent_shape), jnp.float32)


def apply(
  module: nn.Module, variables: Variables, *inputs: AnyArray | Sequence[AnyArray] | None
) -> Float[Array, " n *features"]:
  """Returns what a module computes; no collection of its variables changes."""
  # Flax declares a pair for the case that collections change.
  return cast(jax.Array, module.apply(variables, *inputs))


@dataclasses.dataclass(frozen=True)
class Generator:
  """A pretrained image generator.

  Attributes:
    variables: the network's arrays, a pytree; always passed to `generate` explicitly so that it
      can be replicated, cast or donated.
    image_size: side of the square images, in pixels.
    latent_shape: shape of one latent, the space that directions live in.
    num_classes: number of classes, or None if the generator is unconditional.
    sample_latents: draws float32 latents from the generator's own prior.
    generate: a pure function of variables, latents and int32 labels that returns float32 images in
      [-1, 1], of `image_size` by `image_size` pixels; works under `jit`, `grad`, `vmap` and `pmap`.
      Unconditional generators ignore the labels.
    identity: names the weights, so that results remember what they were made from; for a converted
      file, its SHA-256.
  """

  variables: Variables
  image_size: int
  latent_shape: tuple[int, ...]
  num_classes: int | None
  sample_latents: SampleLatents
  generate: Generate
  identity: str

  def sample_labels(self, key: Key[Array, ""], n: int) -> Int[Array, " {n}"]:
    """Draws int32 labels, uniform over the classes; all 0 if unconditional."""
    return jax.random.randint(key, (n,), 0, self.num_classes or 1, dtype=jnp.int32)


def check_dtype(setting: str, dtype: str) -> None:
  """Raises a ValueError that names the setting unless `dtype` is one of `DTYPES`."""
  if dtype not in DTYPES:
    raise InvalidValue(f"{setting}={dtype!r}: expected one of {', '.join(DTYPES)}")


def with_dtype(generator: Generator, dtype: str) -> Generator:
  """Returns the generator with its arrays cast, once and on the host, to the type it computes in.

  Args:
    generator: any.
    dtype: `float32` or `bfloat16`; latents and images stay float32.

  Raises:
    ValueError: it is another type.
  """
  if dtype not in DTYPES:
    raise InvalidValue(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
  if dtype == "float32":
    return generator

  def generate(variables, latents, labels):
    return generator.generate(variables, latents.astype(dtype), labels).astype(jnp.float32)

  def cast(array):
    return array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array

  # On the host: who computes puts the arrays on the devices.
  variables = jax.tree.map(cast, jax.device_get(generator.variables))
  return dataclasses.replace(generator, variables=variables, generate=generate)


def sample_at(
  generator: Generator, key: Key[Array, ""], indices: Int[AnyArray, " n"]
) -> tuple[Float[Array, " n *latent_shape"], Int[Array, " n"]]:
  """Draws latents and labels by their indices in a stream, whatever batch they are drawn in.

  Args:
    generator: whose prior to draw from.
    key: a typed PRNG key that names the stream.
    indices: of the latents and labels within the stream, from 0.

  Returns:
    Latents, and int32 labels.
  """

  def one(index):
    latent_key, label_key = jax.random.split(jax.random.fold_in(key, index))
    return generator.sample_latents(latent_key, 1)[0], generator.sample_labels(label_key, 1)[0]

  return jax.vmap(one)(indices)
