"""Estimates the time and memory of every stage on a TPU with its compiler, without a TPU.

python benchmarks/tpu.py [--stages=search,candidates,train,on_the_fly] [--chips=1]
  [--generators=bigbigan-128,studiogan-sagan,selfcondgan,biggan-deep-256,stylegan2-1024,dcgan-faces]
  [--dtype=bfloat16] [--batch=128] [--microbatch=8] [--chunk=64] [--acceptance=0.3]
  [--host=FILE] [--cores=28] [--json=FILE] [--text=FOLDER]

It needs x86-64 Linux and libtpu (`pip install -e '.[tpu]'`), and takes about a minute per program.
Programs are compiled ahead of time for a v5e. Nothing runs on a TPU: every time is an estimate and
has not been measured.

Each program is a function that the package passes to `jax.pmap`, at the generator's published size
with the settings of its config; training uses those of the first generator. A call is one step, or
one chunk of candidates on each chip. `--batch`, `--microbatch` and `--chunk` override the configs.

- estimate: the compiler's cycle estimates of all operations, summed, at 1.5 GHz. Loops count as
  often as they iterate. Component labelling counts as many iterations as it took on this machine
  for enlarged masks of the shipped face generator. Gathers, scatters, generated kernels and
  transfers between chips have no estimate; the last column lists their number and size.
- full rate: the time of the convolutions and matrix products, counted in the traced program, at 197
  TFLOP/s; and its share of the estimate.
- memory: arguments, results, temporary buffers and code; a chip has 16 GiB.
- accessed: bytes according to the compiler's cost analysis. Loop bodies count once. It includes
  padding and data that stay in on-chip memory. HBM: bytes to and from HBM, computed from the
  program's text.
- where it goes: the five costliest kinds of operation, by their names before compilation.

With several numbers of chips (`--chips=1,8,16`), the paper's run is projected for each: 300 search
steps, 1,000,000 kept pairs and 18,000 training steps, without transfers between chips and without
the disk. `--host` reads the file of `host.py --json`: if the host is slower than the chips, its
time counts, with `--cores` CPU cores per chip and eight chips per host. Without it, the host takes
no time. `--json` writes all results, and `--text` each program's HLO.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import command_line, experiments, published
from common.rate_table import significant
from paper_run import projection
from unseg_jax.generators import DTYPES

RATE = 197e12  # Dense bfloat16 FLOP/s of a v5e, from Google's data sheet.
# Number of chips -> the smallest topology that has them; a single chip is part of a 2x2 board.
TOPOLOGIES = {"1": "v5e:2x2", "4": "v5e:2x2", "8": "v5e:2x4", "16": "v5e:4x4"}
STAGES = ("search", "candidates", "train", "on_the_fly")
OF_ANY_GENERATOR = ("train", "on_the_fly")
PAPER = "bigbigan-128"
CHIPS_OF_A_HOST = 8
FAMILIES = (PAPER, "studiogan-sagan", "selfcondgan", "biggan-deep-256", "stylegan2-1024")
FAMILIES = (*FAMILIES, "dcgan-faces")
LITTLE = 65_536  # Bytes; counts of candidates are smaller.
SMALL = 0.01  # The most bytes of batch norms, as a share of the gradient's.
SHOWN = 5
# Makes libtpu compile without a TPU, and JAX compute on the host.
ENVIRONMENT = {
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "JAX_PLATFORMS": "cpu",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
}
HEADINGS = ("program", "chips", "estimate", "full rate", "memory", "accessed", "HBM")
HEADINGS = (*HEADINGS, "where it goes, ms", "without estimate")


def programs(stages: Sequence[str], generators: Sequence[str]) -> list[tuple[str, str]]:
  """Returns stage and generator of each program; training, which needs no generator, is once."""
  return [
    (stage, name)
    for stage in stages
    for name in (generators[:1] if stage in OF_ANY_GENERATOR else generators)
  ]


def compile_all(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
  """Runs `tpu_estimates.programs` in its own process; yields its results.

  Raises:
    subprocess.CalledProcessError: the process failed; it has printed the reason.
  """
  flags = f"--xla_force_host_platform_device_count={request['chips']}"
  environment = {
    **os.environ,
    **ENVIRONMENT,
    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
  }
  command = [sys.executable, "-m", "tpu_estimates.programs", json.dumps(request)]
  with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
    for line in child.stdout:
      yield json.loads(line)
  if child.returncode:
    raise subprocess.CalledProcessError(child.returncode, command)


def row(result: Mapping[str, Any]) -> list[str]:
  """Returns a program's cells, in the order of `HEADINGS`."""
  name = [result["stage"].replace("_", " "), result["dtype"], result["note"]]
  if result["stage"] != "train":
    name.insert(1, result["generator"])
  first = [", ".join(name), str(result["chips"])]
  if "error" in result:
    return [*first, *["-"] * 5, result["error"], "-"]
  ideal = result["flops"] / RATE
  return [
    *first,
    _milliseconds(result["seconds"]),
    f"{_milliseconds(ideal)} ({ideal / result['seconds']:.0%})",
    f"{result['memory'] / 2**30:.1f} GiB",
    f"{result['bytes'] / 1e9:.1f} GB",
    f"{result['traffic'] / 1e9:.1f} GB",
    _costliest(result["kinds"]),
    _unknown(result["without estimate"]),
  ]


def _milliseconds(seconds: float) -> str:
  return f"{significant(1e3 * seconds)} ms"


def _costliest(kinds: Mapping[str, float]) -> str:
  shown = list(kinds.items())[:SHOWN]
  return ", ".join(f"{kind} {significant(1e3 * seconds)}" for kind, seconds in shown)


def _unknown(operations: Sequence[Mapping[str, Any]]) -> str:
  parts = [f"{significant(x['times'])} {x['kind']} of {x['elements']:,}" for x in operations]
  return ", ".join(parts) or "none"


def crossing(result: Mapping[str, Any]) -> str:
  """Describes the transfers of a call between chips, and whether they are as expected.

  Expected transfers: a step averages its gradient once, and batch norms their small sums; pairs
  made on the fly are gathered. Candidates need no transfers.
  """
  groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
  for each in result["collectives"]:
    groups.setdefault((each["operation"], _purpose(each, result["stage"])), []).append(each)
  sent = {
    key: (sum(each["times"] for each in group), sum(x["times"] * x["bytes"] for x in group))
    for key, group in groups.items()
  }
  told = [
    f"{significant(times)} {operation} of {purpose}, {_bytes(size)}"
    for (operation, purpose), (times, size) in sent.items()
  ]
  times, gradient = sent.pop(("all-reduce", "the gradient"), (0, 0))
  _, norms = sent.pop(("all-reduce", "batch norms"), (0, 0))
  if result["stage"] == "on_the_fly":
    sent.pop(("all-gather", "pairs"), None)
    sent.pop(("all-reduce", "pairs"), None)
  if result["gathers backgrounds"]:
    sent.pop(("all-gather", "pictures"), None)
  expected = 0 if result["stage"] == "candidates" else 1
  fine = times == expected and norms <= SMALL * gradient and not sent
  note = "nothing else crosses chips" if fine else "NOT WHAT IS EXPECTED"
  if result["gathers backgrounds"]:
    note += "; backgrounds of other pairs gather the whole batch"
  return f"{result['stage']}, {result['chips']} chips: {'; '.join([*told, note])}"


def _purpose(collective: Mapping[str, Any], stage: str) -> str:
  if "/norm_" in collective["source"]:
    return "batch norms"
  # The compiler gives small gathers, of counts and verdicts, no source.
  if stage == "on_the_fly" and not collective["source"] and collective["bytes"] < LITTLE:
    return "pairs"
  if collective["operation"] == "all-gather":
    return "pairs" if "/while/" in collective["source"] else "pictures"
  return "the gradient" if collective["operation"] == "all-reduce" else "something else"


def _bytes(size: float) -> str:
  return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.3g} kB"


def host_seconds(cost: Mapping[str, float], chips: int, cores: int) -> float:
  """Returns the seconds per pair on the hosts of these chips.

  Args:
    cost: CPU time per pair of all processes (`cpu`) and of the one that feeds the chips (`serial`),
      as measured by `host.py`.
    chips: number of chips.
    cores: CPU cores per chip.
  """
  hosts = -(-chips // CHIPS_OF_A_HOST)
  return max(cost["serial"] / hosts, cost["cpu"] / (cores * chips))


def measured(
  results: Sequence[Mapping[str, Any]], host: Mapping[str, Mapping[str, float]], cores: int
) -> dict[str, projection.Measured]:
  """Collects the estimates for the paper's generator, by number of chips."""
  found: dict[str, projection.Measured] = {}
  for result in results:
    if result["generator"] != PAPER or "error" in result:
      continue
    units = found.setdefault(f"{result['chips']} x v5e", projection.Measured())
    for name, part in (("written", "write"), ("read", "read")):
      if part in host:
        setattr(units, name, host_seconds(host[part], result["chips"], cores))
    if result["stage"] == "search":
      units.search = result["seconds"]
    elif result["stage"] == "candidates":
      # The disk is unknown and assumed to keep up.
      units.candidate = units.pair = result["seconds"] / (result["chunk"] * result["chips"])
    elif result["stage"] == "train":
      units.disk_step = result["seconds"]
    else:
      units.on_the_fly_step = result["seconds"]
  return found


def make_parser() -> argparse.ArgumentParser:
  """Defines the flags."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  known = dict.fromkeys((*FAMILIES, *published.GENERATORS))
  names, positive = command_line.names, command_line.positive
  parser.add_argument(
    "--stages", type=names(STAGES), default=list(STAGES), help="Stages to compile."
  )
  parser.add_argument(
    "--generators", type=names(known), default=FAMILIES, help="Default: one of each family."
  )
  parser.add_argument(
    "--chips", type=names(TOPOLOGIES), default=["1"], help="Numbers of v5e chips."
  )
  parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="Type to compute in.")
  parser.add_argument("--batch", type=positive, help="Batch size of search and training.")
  parser.add_argument("--microbatch", type=positive, help="Microbatch of the search, per chip.")
  parser.add_argument("--chunk", type=positive, help="Candidates per chip at once.")
  parser.add_argument(
    "--acceptance", type=command_line.share, default=0.3, help="Fraction of candidates kept."
  )
  parser.add_argument("--host", type=Path, help="File written by `host.py --json`.")
  parser.add_argument("--cores", type=positive, default=28, help="Processors per chip.")
  parser.add_argument("--json", type=Path, help="File for all results.")
  parser.add_argument("--text", help="Folder for the HLO of each program.")
  return parser


def main() -> None:
  """Compiles the programs and prints the tables."""
  parser = make_parser()
  arguments = parser.parse_args()
  if importlib.util.find_spec("libtpu") is None:
    parser.error("libtpu, the TPU compiler, is not installed; run pip install -e '.[tpu]'")
  print(f"| {' | '.join(HEADINGS)} |\n|{' --- |' * len(HEADINGS)}", flush=True)
  results = []
  for chips in arguments.chips:
    request = {
      "topology": TOPOLOGIES[chips],
      "chips": int(chips),
      "programs": programs(arguments.stages, arguments.generators),
      **{name: getattr(arguments, name) for name in ("dtype", "batch", "microbatch", "chunk")},
      "text": arguments.text,
    }
    for result in compile_all(request):
      results.append(result)
      print(f"| {' | '.join(row(result))} |", flush=True)
  for result in results:
    if result["chips"] > 1 and "error" not in result:
      print(crossing(result))
  host = json.loads(arguments.host.read_text()) if arguments.host else {}
  units = measured(results, host, arguments.cores)
  if units and arguments.batch is None:
    config = experiments.load("bigbigan.py")
    slower = "by the estimates of chip and host" if host else "by the estimates"
    projection.print_table(units, config, arguments.acceptance, slower)
  if arguments.json:
    arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
  main()
