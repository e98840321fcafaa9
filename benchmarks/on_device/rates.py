"""How fast something runs, and the memory that it takes; needs JAX alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from common import timing
from on_device.rows import MISSING, NotMeasured, Report, describe

GIB = 2**30
TOO_LARGE = ("RESOURCE_EXHAUSTED", "out of memory")  # Words of errors.


def seconds_of(
  call: Callable[[], Any],
  smoke: bool,
  torch_call: Callable[[], Any] | None = None,
  torch_wait: Callable[[], None] | None = None,
) -> tuple[float, float | None]:
  """Median seconds of a call, and of PyTorch's in turns with it; see `timing.per_call`."""
  rounds, seconds = (1, 1e-3) if smoke else (3, 0.4)
  return timing.per_call(rounds, seconds, call, torch_call, torch_wait)


def product_rate(dtype: str, precision: str | None, smoke: bool) -> float:
  """FLOP/s of a large matrix product on one device: no program can reach more.

  Args:
    dtype: of the matrices.
    precision: as `jax.default_matmul_precision` takes it; None: the backend's default.
    smoke: whether the matrices are small.
  """
  size = 256 if smoke else 2048 if jax.default_backend() == "cpu" else 8192
  matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
  multiply = jax.jit(lambda x, y: jnp.matmul(x, y, precision=precision))
  seconds, _ = seconds_of(lambda: multiply(matrix, matrix), smoke)
  return 2 * size**3 / seconds


def add_peak(report: Report, what: str) -> None:
  """Writes the most memory of the first device that this process had in use so far."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if "peak_bytes_in_use" in stats:
    report.add(what, stats["peak_bytes_in_use"] / GIB, "GiB", "of this part so far")
  else:
    report.add(what, None, note=f"{MISSING}this backend does not tell")


def if_it_fits(must: bool, function: Callable[..., Any], *arguments: Any) -> Any:
  """Calls the function; where it need not fit, too little memory is no failure.

  Args:
    must: whether it has to fit: what the configs ask for does, more does not.
    function: what to call.
    arguments: of it.

  Raises:
    NotMeasured: it needs more memory than there is, and need not fit.
  """
  try:
    return function(*arguments)
  except RuntimeError as error:
    if must or not any(words in str(error) for words in TOO_LARGE):
      raise
    raise NotMeasured(f"it needs more memory than there is: {describe(error)}") from None
