"""Measures time, rates and memory of functions; needs only JAX."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from common import timing
from on_device.rows import MISSING, NotMeasured, Report, describe

GIB = 2**30
TOO_LARGE = ("RESOURCE_EXHAUSTED", "out of memory")  # Parts of error messages.


def seconds_of(
  call: Callable[[], Any],
  smoke: bool,
  torch_call: Callable[[], Any] | None = None,
  torch_wait: Callable[[], None] | None = None,
) -> tuple[float, float | None]:
  """Returns the median seconds of a call and of PyTorch's; see `timing.per_call`."""
  rounds, seconds = (1, 1e-3) if smoke else (3, 0.4)
  return timing.per_call(rounds, seconds, call, torch_call, torch_wait)


def product_rate(dtype: str, precision: str | None, smoke: bool) -> float:
  """Returns the FLOP/s of a large matrix product on one device, a practical upper bound.

  Args:
    dtype: type of the matrices.
    precision: as for `jax.default_matmul_precision`; None: the backend's default.
    smoke: whether to use small matrices.
  """
  size = 256 if smoke else 2048 if jax.default_backend() == "cpu" else 8192
  matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
  multiply = jax.jit(lambda x, y: jnp.matmul(x, y, precision=precision))
  seconds, _ = seconds_of(lambda: multiply(matrix, matrix), smoke)
  return 2 * size**3 / seconds


def add_peak(report: Report, what: str) -> None:
  """Writes the peak memory that this process has used on the first device so far."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if "peak_bytes_in_use" in stats:
    report.add(what, stats["peak_bytes_in_use"] / GIB, "GiB", "of this part so far")
  else:
    report.add(what, None, note=f"{MISSING}this backend does not report its memory")


def if_it_fits(must: bool, function: Callable[..., Any], *arguments: Any) -> Any:
  """Calls a function that may run out of memory.

  Args:
    must: whether running out of memory is a failure, as for the sizes of the configs.
    function: the function.
    arguments: its arguments.

  Raises:
    NotMeasured: it ran out of memory, and `must` is False.
  """
  try:
    return function(*arguments)
  except RuntimeError as error:
    if must or not any(words in str(error) for words in TOO_LARGE):
      raise
    raise NotMeasured(f"out of memory: {describe(error)}") from None
