"""Devices: the only file that knows how many there are and how work is spread over them."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import jax_utils

AXIS = "devices"

# XLA's CPU compiler hands convolutions and matrix products to YNNPACK where it can. Measured on two
# cores with jaxlib 0.10, its weight gradients of 3 x 3 convolutions take up to six times as long as
# Eigen's (590 ms and 95 ms for [16, 64, 64, 128 -> 64]); only its reductions are faster.
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


def device_count() -> int:
  """Number of devices over which `pmap` spreads its work."""
  return jax.local_device_count()


@functools.cache
def compiler_options() -> dict[str, str]:
  """Compiler options for this backend; empty where this version of XLA does not know them."""
  if jax.default_backend() != "cpu":
    return {}
  try:
    jax.jit(lambda x: x, compiler_options=CPU_OPTIONS)(0)
  except jax.errors.JaxRuntimeError:
    return {}
  return CPU_OPTIONS


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
  """`jax.jit` on one device, compiled with `compiler_options`."""

  @functools.cache
  def compiled():
    # The options depend on the backend, which must not be started when a module is imported.
    return jax.jit(function, compiler_options=compiler_options())

  return lambda *args: compiled()(*args)


def pmap(function: Callable[..., Any], donate_argnums: tuple[int, ...] = ()) -> Callable[..., Any]:
  """`jax.pmap` over all devices along `AXIS`, compiled with `compiler_options`.

  Every argument has a leading axis as long as there are devices. A call compiles once for each
  combination of shapes.
  """
  mapped = jax.pmap(function, axis_name=AXIS, donate_argnums=donate_argnums)
  executables = {}

  def call(*args):
    leaves, structure = jax.tree.flatten(args)
    signature = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
    if signature not in executables:
      executables[signature] = mapped.lower(*args).compile(compiler_options=compiler_options())
    return executables[signature](*args)

  return call


def replicate(tree: Any) -> Any:
  """Returns the tree with every array copied to each device, along a new leading axis."""
  return jax_utils.replicate(tree)


def unreplicate(tree: Any) -> Any:
  """Returns the first device's copy of a replicated tree."""
  return jax_utils.unreplicate(tree)


def shard(tree: Any) -> Any:
  """Splits the leading axis `[N, ...]` of every array over the devices: `[D, N / D, ...]`."""
  return jax.tree.map(lambda x: np.reshape(x, (device_count(), -1, *np.shape(x)[1:])), tree)


def unshard(tree: Any) -> Any:
  """Fetches `[D, N / D, ...]` arrays to the host as `[N, ...]` NumPy arrays."""
  return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), tree)


def check_divisible(name: str, batch: int) -> None:
  """Raises a ValueError unless `batch` splits evenly over the devices."""
  if batch % device_count():
    raise ValueError(
      f"{name}={batch} does not split over {device_count()} devices; use a multiple of "
      f"{device_count()}"
    )
