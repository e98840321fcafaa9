"""Counts a program's operations and memory, and compares them with the chip's peak rate."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from unseg_jax.runtime import parallel

# Dense bfloat16 matrix rates in FLOP/s, from NVIDIA's data sheets.
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "V100": 125e12}


def share_of_peak(rate: float) -> str:
  """Formats FLOP/s as a share of the device's bfloat16 matrix rate; "-" if that is unknown."""
  kind = jax.devices()[0].device_kind
  peak = next((peak for name, peak in PEAK.items() if name in kind), None)
  return f"{rate / peak:.1%}" if peak else "-"


def product_flops(jaxpr: Any, turns: float = 1.0) -> float:
  """Counts the floating-point operations of one device's convolutions and matrix products.

  Args:
    jaxpr: a traced function, `jax.make_jaxpr(f)(...)`.
    turns: number of iterations of while loops, which the program does not contain.
  """
  jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
  total = 0.0
  for equation in jaxpr.eqns:
    parameters = equation.params
    out = equation.outvars[0].aval if equation.outvars else None
    if equation.primitive.name == "conv_general_dilated":
      kernel = equation.invars[1].aval.shape
      features = kernel[parameters["dimension_numbers"].rhs_spec[0]]
      zeros = np.prod(parameters["lhs_dilation"])  # Products with inserted zeros do not count.
      total += 2.0 * np.prod(out.shape) * np.prod(kernel) / features / zeros
    elif equation.primitive.name == "dot_general":
      (contracted, _), _ = parameters["dimension_numbers"]
      lengths = [equation.invars[0].aval.shape[axis] for axis in contracted]
      total += 2.0 * np.prod(out.shape) * np.prod(lengths)
    else:
      inner = [product_flops(j, turns) for value in parameters.values() for j in _jaxprs(value)]
      inner = [max(inner)] if equation.primitive.name == "cond" else inner
      times = {"scan": parameters.get("length"), "while": turns}
      total += sum(inner) * times.get(equation.primitive.name, 1)
  return total


def _jaxprs(value: Any) -> list[Any]:
  values = value if isinstance(value, (tuple, list)) else [value]
  return [x for x in values if hasattr(x, "eqns") or hasattr(getattr(x, "jaxpr", None), "eqns")]


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled function.

  Attributes:
    call: the executable.
    flops: operations of its products, on one device.
    by_compiler: the compiler's count of operations divided by `flops`; 0 if it has none.
    memory: bytes of its arguments and temporary buffers, on one device.
  """

  call: Callable[..., Any]
  flops: float
  by_compiler: float
  memory: int


def compile_and_count(mapped: Any, arguments: Sequence[Any]) -> Program:
  """Compiles a function with the package's options and counts its operations.

  Args:
    mapped: the result of `jax.jit` or `jax.pmap`.
    arguments: its arguments, or their shapes and types.
  """
  flops = product_flops(jax.make_jaxpr(mapped)(*arguments))
  executable = mapped.lower(*arguments).compile(compiler_options=parallel.compiler_options())
  memory = executable.memory_analysis()
  return Program(
    call=executable,
    flops=flops,
    by_compiler=_compiler_flops(executable) / flops,
    memory=memory.temp_size_in_bytes + memory.argument_size_in_bytes,
  )


def _compiler_flops(executable: Any) -> float:
  """Returns the count of the cost analysis for one device, or 0 if the backend has none."""
  found = executable.cost_analysis() or {}
  found = found[0] if isinstance(found, list) else found
  return float(found.get("flops", 0.0))
