"""Measures the host's rates, in pairs and pictures per second, with device work removed.

python benchmarks/host.py [--parts=write,read,predict,steps] [--sizes=128,512] [--workers=0,1,2]
  [--pairs=8192] [--rounds=3] [--json=FILE]

- write: the stage `generate` without making candidates: fetching, encoding, writing shards. Every
  candidate is kept.
- read: the batches of the stage `train` without training: shuffling, reading, decoding, stacking.
- predict: reading pictures and encoding the three outputs of each, without the network.
- CPU: milliseconds of all processes per pair or picture. The part `serial` is the time of the
  process that feeds the devices, which more CPU cores do not reduce.
- cores: the CPU cores needed for the rate that chips demand; `-` if the serial part is too slow.
- steps: Python's time for a step of each loop with next to no device work.

Timings alternate; the rates are medians. The chips' demand is estimated by `tpu.py` for the paper's
generator and U-Net in bfloat16, with 30 % of the candidates kept. `--json` writes the milliseconds,
from which `tpu.py --host=FILE` projects the paper's run.
"""

import argparse
import dataclasses
import itertools
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from common import command_line
from common.rate_table import significant
from host_parts import loops, pairs, prediction
from host_parts.cost import Cost

PARTS = ("write", "read", "predict", "steps")
PAIRS_A_PICTURE = 8  # A picture costs `predict` about as much.
# Pairs of 128 x 128 a second of one chip: a U-Net step of 128 takes 107 ms, 64 BigBiGAN candidates
# 41.5 ms, of which 30 % are kept.
ASKED = {"v5e": {"write": 0.3 * 64 / 41.5e-3, "read": 128 / 107e-3}}
HEADINGS = ("part", "pixels", "workers", "per second", "CPU ms", "serial ms")


def measure(
  parts: Sequence[str], sizes: Sequence[int], workers: Sequence[int], count: int, rounds: int
) -> dict[tuple[str, int, int], Cost]:
  """Returns median costs by part, size and number of worker processes; timings alternate."""
  found: dict[tuple[str, int, int], list[Cost]] = {}
  functions = {"write": pairs.write, "read": pairs.read, "predict": prediction.predict}
  with tempfile.TemporaryDirectory() as name:
    for _ in range(rounds):
      for part, size, worker_count in itertools.product(parts, sizes, workers):
        if part in functions:
          folder = Path(name) / f"{part}-{size}"
          # Fewer large pictures: the same number of bytes, but at least one batch.
          scaled = max(pairs.BATCH, count * 128**2 // size**2)
          scaled //= PAIRS_A_PICTURE if part == "predict" else 1
          cost = functions[part](size, worker_count, scaled, folder)
          found.setdefault((part, size, worker_count), []).append(cost)
          if part == "write":
            shutil.rmtree(folder)
  return {key: _median(costs) for key, costs in found.items()}


def _median(costs: Sequence[Cost]) -> Cost:
  names = [field.name for field in dataclasses.fields(Cost)]
  return Cost(*(statistics.median(getattr(cost, name) for cost in costs) for name in names))


def cells(key: tuple[str, int, int], cost: Cost) -> list[str]:
  """Returns a row of the table with the columns of `HEADINGS`."""
  part, size, count = key
  figures = (1 / cost.seconds, 1e3 * cost.cpu, 1e3 * cost.serial)
  return [part, str(size), str(count), *map(significant, figures)]


def cores(cost: Cost, asked: float) -> str:
  """Returns the CPU cores needed for this many pairs per second."""
  return "-" if cost.serial * asked > 1 else significant(cost.cpu * asked)


def print_demand(found: dict[tuple[str, int, int], Cost]) -> None:
  """Prints the rates that chips demand at the smallest size, and the CPU cores needed."""
  smallest = min((size for _, size, _ in found), default=0)
  with_workers = {
    key[0]: cost
    for key, cost in found.items()
    if key[1] == smallest and key[2] and key[0] in ASKED["v5e"]
  }
  if not with_workers:
    return
  print("\n| part | chips | asked, pairs/s | cores |\n| --- | --- | --- | --- |")
  for part, cost in with_workers.items():
    for (name, rates), chips in itertools.product(ASKED.items(), (1, 4, 8)):
      asked = chips * rates[part]
      print(f"| {part} | {chips} x {name} | {significant(asked)} | {cores(cost, asked)} |")


def main() -> None:
  """Prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  positive, names = command_line.positive, command_line.names
  parser.add_argument("--parts", type=names(PARTS), default=list(PARTS), help="Parts to run.")
  parser.add_argument("--sizes", type=_numbers, default=[128, 512], help="Image sides in pixels.")
  parser.add_argument("--workers", type=_numbers, default=[0, 1, 2], help="Worker processes.")
  parser.add_argument("--pairs", type=positive, default=8192, help="Number of pairs of 128 x 128.")
  parser.add_argument("--rounds", type=positive, default=3, help="Number of timings.")
  parser.add_argument("--json", type=Path, help="File for the costs at 128 x 128.")
  arguments = parser.parse_args()
  print(f"{os.cpu_count()} processors")
  found = measure(
    arguments.parts, arguments.sizes, arguments.workers, arguments.pairs, arguments.rounds
  )
  print(f"| {' | '.join(HEADINGS)} |\n|{' --- |' * len(HEADINGS)}")
  for key, cost in found.items():
    print(f"| {' | '.join(cells(key, cost))} |")
  print_demand(found)
  if "steps" in arguments.parts:
    with tempfile.TemporaryDirectory() as name:
      for loop, seconds in loops.python_time(Path(name)).items():
        print(f"Python's time of a step of {loop}: {significant(1e3 * seconds)} ms")
  if arguments.json:
    costs = {
      part: dataclasses.asdict(cost)
      for (part, size, count), cost in found.items()
      if size == min(arguments.sizes) and count == max(arguments.workers)
    }
    arguments.json.write_text(json.dumps(costs, indent=1))


def _numbers(text: str) -> list[int]:
  if not all(part.isdecimal() for part in text.split(",")):
    raise argparse.ArgumentTypeError(f"{text!r}: expected whole numbers, separated by commas")
  return [int(part) for part in text.split(",")]


if __name__ == "__main__":
  main()
