"""Prints the table of rates of `paper.py`, row by row."""

from collections.abc import Sequence

from common import work
from unseg_jax.runtime import parallel

HEADINGS = ("measurement", "type", "rate", "unit", "TFLOP/s", "all", "share", "XLA", "PyTorch")
HEADINGS = (*HEADINGS, "ratio", "note")
COLUMNS = (38, 8, 10, 12, 8, 8, 6, 5, 9, 6, 0)
WORDS = (0, 1, 3, 10)  # Left-aligned columns.


def print_header() -> None:
  """Prints the table's headings."""
  _print_cells(HEADINGS)
  _print_cells(["-" * max(width, 3) for width in COLUMNS])


def print_row(
  name: str,
  dtype: str,
  rate: float,
  unit: str,
  flops: float | None,
  by_compiler: float = 0.0,
  torch_rate: float | None = None,
  note: str = "",
) -> None:
  """Prints a measurement.

  Args:
    name: the measurement.
    dtype: the type of the computation.
    rate: units per second, of all devices together.
    unit: unit of the rate, such as `steps/s`.
    flops: operations of one unit, on all devices together; None: unknown.
    by_compiler: the compiler's count of operations divided by `flops`; 0: it has none.
    torch_rate: the rate of PyTorch's twin on one device.
    note: further information.
  """
  count = parallel.device_count()
  each = None if flops is None else rate * flops / count
  _print_cells(
    [
      name,
      dtype,
      significant(rate),
      unit,
      significant(each / 1e12) if each else "-",
      significant(count * each / 1e12) if each else "-",
      work.share_of_peak(each) if each else "-",
      f"{by_compiler:.2f}" if by_compiler else "-",
      significant(torch_rate) if torch_rate else "-",
      f"{rate / count / torch_rate:.2f}" if torch_rate else "-",
      note,
    ]
  )


def _print_cells(cells: Sequence[str]) -> None:
  aligned = [
    f"{cell:<{width}}" if i in WORDS else f"{cell:>{width}}"
    for i, (cell, width) in enumerate(zip(cells, COLUMNS, strict=True))
  ]
  print(f"| {' | '.join(aligned)} |", flush=True)


def significant(value: float) -> str:
  """Formats a number with three significant digits."""
  return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
