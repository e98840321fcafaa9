"""Reads a compiled program's `as_text()`: what runs, how often, and what the compiler estimates.

The text is XLA's scheduled HLO. The TPU compiler writes `estimated_cycles` to nearly every
operation that runs; gathers, scatters and transfers that run beside others have none. What a fusion
holds runs as one operation, with one estimate. The body of a loop is written once.
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
# An operation is of the first kind of which it, or the fusion's inside, holds an opcode.
KINDS = {
  "collective": COLLECTIVES,
  "product": ("convolution", "dot"),  # Of matrices; convolutions are.
  "scatter": ("scatter",),
  "gather": ("gather",),
  "sort": ("sort",),
  "reduction": ("reduce", "reduce-window", "select-and-scatter"),
}
# Of these alone: data is moved or laid out anew, and nothing is computed.
MOVES = frozenset(
  "bitcast broadcast concatenate constant copy copy-done copy-start dynamic-slice "
  "dynamic-update-slice get-tuple-element iota pad parameter reshape reverse slice slice-done "
  "slice-start transpose tuple".split()
)
# They move nothing.
FREE = frozenset(
  "bitcast call conditional constant copy-done get-tuple-element parameter slice-done tuple "
  "while".split()
)
# A kernel that the compiler generates or calls, in which it looks no further.
KERNEL = 'custom_call_target="tpu_custom_call"'


@dataclasses.dataclass(frozen=True)
class Operation:
  """An operation of a computation.

  Attributes:
    name: unique in the program.
    shape: of its result, with its layout.
    opcode: HLO's.
    operands: names of what goes in.
    attributes: what follows in the text.
  """

  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  attributes: str

  @property
  def cycles(self) -> int | None:
    """The compiler's estimate; None where it has none."""
    found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
    return int(found[1]) if found else None

  @property
  def source(self) -> str:
    """Where it comes from in the traced function, as `jit(step)/Unet/up_1/concatenate`; or ""."""
    found = re.search(r'op_name="([^"]*)"', self.attributes)
    return found[1] if found else ""

  @property
  def trips(self) -> int | None:
    """How often a while loop's body runs; None where the compiler does not know."""
    found = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', self.attributes)
    return int(found[1]) if found else None

  def called(self, *names: str) -> list[str]:
    """The computations that these attributes name, such as `body` and `condition`."""
    found = []
    for name in names:
      if match := re.search(rf"\b{name}=(\{{[^}}]*\}}|%[\w.-]+)", self.attributes):
        found += re.findall(r"%([\w.-]+)", match[1])
    return found


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled program.

  Attributes:
    computations: by name, each its operations in their order.
    entry: the name of the one that runs.
    shapes: of the results of all operations, by name.
  """

  computations: Mapping[str, Sequence[Operation]]
  entry: str
  shapes: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Run:
  """An operation that runs, its kind, how often it does, and what goes in, in bytes."""

  operation: Operation
  kind: str
  times: float
  operand_bytes: int

  @property
  def cycles(self) -> float:
    """The estimate of all times together; 0 where there is none."""
    return self.times * (self.operation.cycles or 0)


def parse(text: str) -> Program:
  """Reads the text of a compiled program.

  Raises:
    ValueError: there is no entry computation.
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
  """The length of the text's first part, up to the bracket that closes its first one."""
  depth = 0
  for i, character in enumerate(text):
    depth += (character == "(") - (character == ")")
    if depth == 0:
      return i + 1
  raise ValueError(f"no closing bracket in {text[:80]!r}")


def size(shape: str) -> int:
  """Bytes of an array's or a tuple's elements, whatever the layout pads."""
  return sum(number * _bits(kind) for kind, number in _arrays(shape)) // 8


def elements(shape: str) -> int:
  """The number of an array's or a tuple's elements."""
  return sum(number for _, number in _arrays(shape))


def _arrays(shape: str) -> list[tuple[str, int]]:
  """Each array's type and number of elements."""
  found = re.findall(r"\b([a-z]+\d*\w*)\[([\d,]*)\]", shape)
  return [(kind, math.prod(map(int, filter(None, lengths.split(","))))) for kind, lengths in found]


def _bits(kind: str) -> int:
  """Bits of an element; 0 for what is no number, such as a token."""
  return 8 if kind == "pred" else int((re.search(r"\d+", kind) or "0")[0])


def runs(program: Program, trips: Sequence[float] = ()) -> list[Run]:
  """Everything that runs, from the entry computation down, loops as often as they turn.

  Of a conditional the branch counts that is estimated to take longest.

  Args:
    program: the parsed text.
    trips: how often loops turn whose number of turns the compiler does not know: the outermost one,
      then those within it, and so on.

  Raises:
    ValueError: there are such loops deeper than that.
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
            f"nobody knows how often the loop {operation.name} turns ({operation.source}); give as "
            "many numbers as such loops are nested"
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
  """The operation, or what the fusion holds."""
  if operation.opcode != "fusion":
    return [operation]
  (inside,) = operation.called("calls")
  return [part for each in program.computations[inside] for part in _parts(program, each)]


def cycles(found: Sequence[Run]) -> float:
  """The estimate for all of them, one after the other."""
  return sum(run.cycles for run in found)


def kinds(found: Sequence[Run]) -> dict[str, float]:
  """Cycles by kind and by the operation of the traced function that it was, the costliest first."""
  total = collections.Counter()
  for run in found:
    total[f"{run.kind} {run.operation.source.rpartition('/')[2]}".strip()] += run.cycles
  return dict(total.most_common())


def sources(found: Sequence[Run]) -> dict[str, float]:
  """Cycles by kind and place in the traced function, the costliest first."""
  total = collections.Counter()
  for run in found:
    total[f"{run.kind} {run.operation.source}".strip()] += run.cycles
  return dict(total.most_common())


def without_estimate(program: Program, found: Sequence[Run]) -> dict[tuple[str, int], float]:
  """How often gathers, scatters, sorts and kernels run for which the compiler has no estimate.

  By kind and size: the elements that are gathered or scattered; of others, those of the result.
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
  """What crosses chips: operation, place in the traced function, how often, bytes of each chip."""
  return [
    (part.opcode.removesuffix("-start"), run.operation.source, run.times, run.operand_bytes)
    for run in found
    if run.kind == "collective"
    for part in _parts(program, run.operation)
    if part.opcode.removesuffix("-start") in COLLECTIVES
  ]


def traffic(program: Program, found: Sequence[Run]) -> float:
  """Bytes that operations take from the chip's memory and put there, as often as they run.

  What lies in the faster memory beside the processor (`S(1)` in its layout) does not count, nor
  what a layout pads. Whole arrays count even where an operation takes a part of one.
  """
  return sum(run.times * _memory_bytes(program, run.operation) for run in found)


def _memory_bytes(program: Program, operation: Operation) -> int:
  if operation.opcode in FREE:
    return 0
  if operation.opcode in ("copy-start", "slice-start"):
    # Beside others: between the memories, of a whole array or of its part.
    return min(size(shape) for shape in re.findall(r"[a-z]+\d*\w*\[[\d,]*\]", operation.shape)[:2])
  shapes = (operation.shape, *(program.shapes[name] for name in operation.operands))
  return sum(
    size(array)
    for shape in shapes
    for array, layout in re.findall(r"([a-z]+\d*\w*\[[\d,]*\])(\{[^}]*\})?", shape)
    if "S(" not in layout
  )
