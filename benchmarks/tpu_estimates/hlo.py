"""Parses a compiled program's `as_text()`: its operations, their counts and estimated cycles.

The text is XLA's scheduled HLO. The TPU compiler adds `estimated_cycles` to nearly every operation,
but not to gathers, scatters and asynchronous transfers. A fusion runs as one operation with one
estimate. The body of a loop appears once.
"""

import collections
import dataclasses
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

COLLECTIVES = (
  "all-reduce",
  "all-gather",
  "all-to-all",
  "reduce-scatter",
  "collective-permute",
  "collective-broadcast",
)
# An operation is of the first kind that lists its opcode, or an opcode inside its fusion.
KINDS = {
  "collective": COLLECTIVES,
  "product": ("convolution", "dot"),  # Both run as matrix products.
  "scatter": ("scatter",),
  "gather": ("gather",),
  "sort": ("sort",),
  "reduction": ("reduce", "reduce-window", "select-and-scatter"),
}
# An operation with only these opcodes moves data and computes nothing.
MOVES = frozenset(
  "bitcast broadcast concatenate constant copy copy-done copy-start dynamic-slice "
  "dynamic-update-slice get-tuple-element iota pad parameter reshape reverse slice slice-done "
  "slice-start transpose tuple".split()
)
# Opcodes that move no data.
FREE = frozenset(
  "bitcast call conditional constant copy-done get-tuple-element parameter slice-done tuple "
  "while".split()
)
# A kernel that the compiler generates or calls, and whose contents the text does not show.
KERNEL = 'custom_call_target="tpu_custom_call"'


@dataclasses.dataclass(frozen=True)
class Operation:
  """An operation of a computation.

  Attributes:
    name: a name that is unique in the program.
    shape: shape of its result, with the layout.
    opcode: the HLO opcode.
    operands: names of its operands.
    attributes: the rest of its line.
  """

  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  attributes: str

  @property
  def cycles(self) -> int | None:
    """The compiler's estimate, or None."""
    found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
    return int(found[1]) if found else None

  @property
  def source(self) -> str:
    """Its origin in the traced function, such as `jit(step)/Unet/up_1/concatenate`, or ""."""
    found = re.search(r'op_name="([^"]*)"', self.attributes)
    return found[1] if found else ""

  @property
  def trips(self) -> int | None:
    """The number of iterations of a while loop, or None if the compiler does not know it."""
    found = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', self.attributes)
    return int(found[1]) if found else None

  def called(self, *names: str) -> list[str]:
    """Returns the computations that attributes such as `body` and `condition` name."""
    found = []
    for name in names:
      if match := re.search(rf"\b{name}=(\{{[^}}]*\}}|%[\w.-]+)", self.attributes):
        found += re.findall(r"%([\w.-]+)", match[1])
    return found


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled program.

  Attributes:
    computations: lists of operations, by name.
    entry: the name of the entry computation.
    shapes: shapes of the results of all operations, by name.
  """

  computations: Mapping[str, Sequence[Operation]]
  entry: str
  shapes: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Run:
  """An executed operation, its kind, how often it runs, and the bytes of its operands."""

  operation: Operation
  kind: str
  times: float
  operand_bytes: int

  @property
  def cycles(self) -> float:
    """The estimate of all executions together, or 0 if there is none."""
    return self.times * (self.operation.cycles or 0)


def parse(text: str) -> Program:
  """Parses the text of a compiled program.

  Raises:
    ValueError: the text has no entry computation.
  """
  computations, entry, current = {}, None, None
  for line in text.splitlines():
    if header := re.match(r"(ENTRY )?%([\w.-]+) .*\{$", line):
      current = computations.setdefault(header[2], [])
      entry = header[2] if header[1] else entry
    elif current is not None and (operation := _operation(line)):
      current.append(operation)
  if entry is None:
    raise ValueError(f"expected HLO text with an ENTRY computation, got {text[:80]!r}")
  operations = itertools.chain.from_iterable(computations.values())
  return Program(computations, entry, {each.name: each.shape for each in operations})


def _operation(line: str) -> Operation | None:
  match = re.match(r"\s+(?:ROOT )?%([\w.-]+) = (.*)", line)
  if not match:
    return None
  rest = match[2]
  end = _closing(rest) if rest.startswith("(") else rest.index(" ")
  shape, rest = rest[:end], rest[end:].lstrip()
  opcode, _, rest = rest.partition("(")
  end = _closing("(" + rest) - 1
  operands = tuple(re.findall(r"%([\w.-]+)", rest[:end]))
  return Operation(match[1], shape, opcode, operands, rest[end:])


def _closing(text: str) -> int:
  """Returns the length of the text up to the bracket that closes its first one."""
  depth = 0
  for i, character in enumerate(text):
    depth += (character == "(") - (character == ")")
    if depth == 0:
      return i + 1
  raise ValueError(f"no closing bracket in {text[:80]!r}")


def size(shape: str) -> int:
  """Returns the bytes of an array's or a tuple's elements, without padding."""
  return sum(number * _bits(kind) for kind, number in _arrays(shape)) // 8


def elements(shape: str) -> int:
  """Returns the number of an array's or a tuple's elements."""
  return sum(number for _, number in _arrays(shape))


def _arrays(shape: str) -> list[tuple[str, int]]:
  """Returns each array's type and number of elements."""
  found = re.findall(r"\b([a-z]+\d*\w*)\[([\d,]*)\]", shape)
  return [(kind, math.prod(map(int, filter(None, lengths.split(","))))) for kind, lengths in found]


def _bits(kind: str) -> int:
  """Returns the bits of an element; 0 for types without data, such as tokens."""
  return 8 if kind == "pred" else int((re.search(r"\d+", kind) or "0")[0])


def runs(program: Program, trips: Sequence[float] = ()) -> list[Run]:
  """Lists all executed operations, from the entry computation down.

  Operations of loops are multiplied by the number of iterations. Of a conditional, the branch with
  the longest estimate counts.

  Args:
    program: the parsed text.
    trips: numbers of iterations of loops for which the compiler does not know it, by depth, the
      outermost first.

  Raises:
    ValueError: such loops are nested more deeply.
  """
  return list(_runs(program, program.entry, 1.0, tuple(trips)))


def _runs(program: Program, name: str, times: float, trips: tuple[float, ...]) -> Iterator[Run]:
  for operation in program.computations[name]:
    inner, inner_times, inner_trips = [], times, trips
    if operation.opcode == "while":
      inner = operation.called("body", "condition")
      turns = operation.trips
      if turns is None:
        if not trips:
          raise ValueError(
            f"unknown number of iterations of the loop {operation.name} ({operation.source}); give "
            "one number in `trips` for each level of nesting"
          )
        turns, *inner_trips = trips
      inner_times, inner_trips = times * turns, tuple(inner_trips)
    elif operation.opcode == "conditional":
      branches = operation.called("branch_computations", "true_computation", "false_computation")
      found = [list(_runs(program, branch, times, trips)) for branch in branches]
      yield from max(found, key=cycles)
    elif operation.opcode == "call" or (
      operation.opcode == "async-start" and operation.cycles is None
    ):
      inner = operation.called("to_apply", "calls")
    operand_bytes = sum(size(program.shapes[operand]) for operand in operation.operands)
    yield Run(operation, _kind(program, operation), times, operand_bytes)
    for computation in inner:
      yield from _runs(program, computation, inner_times, inner_trips)


def _kind(program: Program, operation: Operation) -> str:
  if KERNEL in operation.attributes:
    return "kernel"
  opcodes = {part.opcode.removesuffix("-start") for part in _parts(program, operation)}
  for kind, members in KINDS.items():
    if opcodes & set(members):
      return kind
  return "movement" if opcodes <= MOVES else "elementwise"


def _parts(program: Program, operation: Operation) -> list[Operation]:
  """Returns the operation, or the operations of a fusion."""
  if operation.opcode != "fusion":
    return [operation]
  (inside,) = operation.called("calls")
  return [part for each in program.computations[inside] for part in _parts(program, each)]


def cycles(found: Sequence[Run]) -> float:
  """Returns the sum of all estimates."""
  return sum(run.cycles for run in found)


def kinds(found: Sequence[Run]) -> dict[str, float]:
  """Returns cycles by kind and operation of the traced function, the costliest first."""
  total = collections.Counter()
  for run in found:
    total[f"{run.kind} {run.operation.source.rpartition('/')[2]}".strip()] += run.cycles
  return dict(total.most_common())


def sources(found: Sequence[Run]) -> dict[str, float]:
  """Returns cycles by kind and origin in the traced function, the costliest first."""
  total = collections.Counter()
  for run in found:
    total[f"{run.kind} {run.operation.source}".strip()] += run.cycles
  return dict(total.most_common())


def without_estimate(program: Program, found: Sequence[Run]) -> dict[tuple[str, int], float]:
  """Counts the gathers, scatters, sorts and kernels without an estimate.

  The counts are by kind and size: the number of elements gathered or scattered, or else of the
  result.
  """
  counted = collections.Counter()
  for run in found:
    if run.kind in ("gather", "scatter", "sort", "kernel") and run.operation.cycles is None:
      counted[run.kind, _moved(program, run)] += run.times
  return dict(counted)


def _moved(program: Program, run: Run) -> int:
  for part in _parts(program, run.operation):
    if part.opcode == "scatter":
      return elements(program.shapes[part.operands[-1]])
  return elements(run.operation.shape)


def collectives(program: Program, found: Sequence[Run]) -> list[tuple[str, str, float, int]]:
  """Lists transfers between chips: operation, origin, number of executions, bytes per chip."""
  return [
    (part.opcode.removesuffix("-start"), run.operation.source, run.times, run.operand_bytes)
    for run in found
    if run.kind == "collective"
    for part in _parts(program, run.operation)
    if part.opcode.removesuffix("-start") in COLLECTIVES
  ]


def traffic(program: Program, found: Sequence[Run]) -> float:
  """Returns the bytes that all operations read from and write to HBM.

  Data in on-chip memory (`S(1)` in the layout) and padding do not count. An array counts fully even
  if an operation reads only a part of it.
  """
  return sum(run.times * _memory_bytes(program, run.operation) for run in found)


def _memory_bytes(program: Program, operation: Operation) -> int:
  if operation.opcode in FREE:
    return 0
  if operation.opcode in ("copy-start", "slice-start"):
    # An asynchronous transfer of an array, or a part of it, between the memories.
    return min(size(shape) for shape in re.findall(r"[a-z]+\d*\w*\[[\d,]*\]", operation.shape)[:2])
  shapes = (operation.shape, *(program.shapes[name] for name in operation.operands))
  return sum(
    size(array)
    for shape in shapes
    for array, layout in re.findall(r"([a-z]+\d*\w*\[[\d,]*\])(\{[^}]*\})?", shape)
    if "S(" not in layout
  )
