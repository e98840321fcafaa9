"""The generator interface: the same small frozen object for every architecture."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from unseg_jax.array_types import AnyArray, Array, Float, Int, Key
from unseg_jax.errors import InvalidValue

Variables = dict[str, Any]
# A generator's prior: maps (key, n) to n latents.
SampleLatents = Callable[[Key[Array, ""], int], Float[Array, " n *latent_shape"]]
# Maps (variables, latents, labels) to images.
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
  """Returns the output of a module without mutable collections."""
  # Flax annotates a pair, which it returns only with mutable collections.
  return cast(jax.Array, module.apply(variables, *inputs))


@dataclasses.dataclass(frozen=True)
class Generator:
  """A pretrained image generator.

  Attributes:
    variables: a pytree of the network's arrays. They are always passed to `generate` explicitly, so
      that they can be replicated, cast or donated.
    image_size: side of the square images, in pixels.
    latent_shape: shape of one latent; directions have the same shape.
    num_classes: number of classes, or None if the generator is unconditional.
    sample_latents: samples float32 latents from the generator's prior.
    generate: a pure function of variables, latents and int32 labels. It returns float32 images in
      [-1, 1], of `image_size` by `image_size` pixels, and works under `jit`, `grad`, `vmap` and
      `pmap`. Unconditional generators ignore the labels.
    identity: identifies the weights in the records of results. For a converted file, it is the
      SHA-256.
  """

  variables: Variables
  image_size: int
  latent_shape: tuple[int, ...]
  num_classes: int | None
  sample_latents: SampleLatents
  generate: Generate
  identity: str

  def sample_labels(self, key: Key[Array, ""], n: int) -> Int[Array, " {n}"]:
    """Samples int32 labels, uniform over the classes; all 0 if unconditional."""
    return jax.random.randint(key, (n,), 0, self.num_classes or 1, dtype=jnp.int32)


def check_dtype(setting: str, dtype: str) -> None:
  """Raises a ValueError that names the setting unless `dtype` is one of `DTYPES`."""
  if dtype not in DTYPES:
    raise InvalidValue(f"{setting}={dtype!r}: expected one of {', '.join(DTYPES)}")


def with_dtype(generator: Generator, dtype: str) -> Generator:
  """Returns the generator with its arrays cast to a dtype, once and on the host.

  Args:
    generator: any generator.
    dtype: the dtype of computations, `float32` or `bfloat16`; latents and images stay float32.

  Raises:
    ValueError: `dtype` is neither.
  """
  if dtype not in DTYPES:
    raise InvalidValue(f"dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
  if dtype == "float32":
    return generator

  def generate(variables, latents, labels):
    return generator.generate(variables, latents.astype(dtype), labels).astype(jnp.float32)

  def cast(array):
    return array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array

  # Cast on the host; the caller copies the arrays to the devices.
  variables = jax.tree.map(cast, jax.device_get(generator.variables))
  return dataclasses.replace(generator, variables=variables, generate=generate)


def sample_at(
  generator: Generator, key: Key[Array, ""], indices: Int[AnyArray, " n"]
) -> tuple[Float[Array, " n *latent_shape"], Int[Array, " n"]]:
  """Samples latents and labels by their indices in a stream, independent of the batch.

  Args:
    generator: the generator whose prior is sampled.
    key: the typed PRNG key of the stream.
    indices: indices of the latents and labels in the stream, from 0.

  Returns:
    Latents and int32 labels.
  """

  def one(index):
    latent_key, label_key = jax.random.split(jax.random.fold_in(key, index))
    return generator.sample_latents(latent_key, 1)[0], generator.sample_labels(label_key, 1)[0]

  return jax.vmap(one)(indices)
