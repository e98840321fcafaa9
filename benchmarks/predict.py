"""Times `python -m unseg_jax.predict` over many images, on several devices and processes.

python benchmarks/predict.py [--pictures=2000] [--devices=1,4] [--processes=1,2]
  [--outputs=mask] [--segmenter=pretrained:faces] [--workers=0,1,2] [--size=400x300]
  [--checkout=FOLDER]

The script writes photograph-like JPEG files to a temporary folder and runs the command on them:
with each number of simulated CPU devices in one process; in each number of processes with one
device; and in one process with each number of `--workers`. In the other rows, the command chooses
the number of workers. Each row also times a tenth of the pictures, which is mostly start-up time;
the rate is that of the remaining pictures. Memory is the peak resident size of the processes,
without workers, in the first half of the run and at its end. `--checkout` runs the package of
another checkout for comparison; `--outputs=all` omits the flag, which old versions lack.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from common import command_line
from common.photographs import make_pictures

ROOT = Path(__file__).resolve().parents[1]
LOOK_SECONDS = 0.1


def run(
  pictures: Path, output: Path, flags: Sequence[str], devices: int, processes: int, checkout: Path
) -> tuple[float, list[int]]:
  """Runs the command; returns its seconds, and its resident bytes over time."""
  command = [sys.executable, "-m", "unseg_jax.predict", f"--input={pictures}", f"--output={output}"]
  environment = os.environ | {
    "PYTHONPATH": str(checkout),
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
  }
  together = []
  if processes > 1:
    together = ["--coordinator=localhost:8476", f"--processes={processes}"]
  start = time.perf_counter()
  started = [
    subprocess.Popen(
      [*command, *flags, *together, *([f"--process={number}"] if together else [])],
      env=environment,
      cwd=checkout,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
    )
    for number in range(processes)
  ]
  sizes = []
  while any(process.poll() is None for process in started):
    sizes.append(sum(_resident(process.pid) for process in started))
    time.sleep(LOOK_SECONDS)
  seconds = time.perf_counter() - start
  for process in started:
    _, errors = process.communicate()
    if process.returncode:
      sys.exit(errors.decode())
  return seconds, sizes


def _resident(pid: int) -> int:
  try:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
  except OSError:
    return 0  # The process has ended.


def measure(arguments: argparse.Namespace, folder: Path) -> None:
  """Prints a row for each variant of the command."""
  few = max(1, arguments.pictures // 10)
  make_pictures(folder / "few", few, arguments.size)
  make_pictures(folder / "many", arguments.pictures, arguments.size)
  flags = [f"--segmenter={arguments.segmenter}"]
  if arguments.outputs != "all":
    flags.append(f"--outputs={arguments.outputs}")
  columns = ("processes", "devices of each", "workers", "seconds", "pictures/s beyond the first")
  print(f"| {' | '.join(columns)} | GiB, half, end |")
  print("| --- | --- | --- | --- | --- | --- |", flush=True)
  ways = [(1, devices, "default") for devices in arguments.devices]
  ways += [(processes, 1, "default") for processes in arguments.processes if processes > 1]
  ways += [(1, 1, workers) for workers in arguments.workers]
  for processes, devices, workers in ways:
    taken = {}
    for name in ("few", "many"):
      output = folder / f"{name}-{processes}-{devices}-{workers}"
      way = (devices, processes, arguments.checkout)
      taken[name], sizes = run(folder / name, output, [*flags, *_of_workers(workers)], *way)
    rate = (arguments.pictures - few) / (taken["many"] - taken["few"])
    half, end = max(sizes[: len(sizes) // 2], default=0), max(sizes, default=0)
    print(
      f"| {processes} | {devices} | {workers} | {taken['many']:.1f} | {rate:.1f} "
      f"| {half / 2**30:.2f}, {end / 2**30:.2f} |",
      flush=True,
    )


def _of_workers(workers: str) -> list[str]:
  """Returns the flag --workers, or no flag by default, since other checkouts may lack it."""
  return [] if workers == "default" else [f"--workers={workers}"]


def size(text: str) -> tuple[int, int]:
  """Parses a width and a height, such as 400x300."""
  width, height = text.split("x")
  return command_line.positive(width), command_line.positive(height)


def numbers(text: str) -> list[int]:
  """Parses integers separated by commas."""
  return [command_line.positive(part) for part in text.split(",")]


def main() -> None:
  """Runs the measurements and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument(
    "--pictures", type=command_line.positive, default=2000, help="Number of images."
  )
  parser.add_argument("--devices", type=numbers, default=[1, 4], help="Numbers of CPU devices.")
  parser.add_argument("--processes", type=numbers, default=[1, 2], help="Numbers of processes.")
  parser.add_argument(
    "--workers", type=lambda text: text.split(","), default=[], help="Numbers of worker processes."
  )
  parser.add_argument("--size", type=size, default="400x300", help="Width x height of the images.")
  parser.add_argument("--outputs", default="mask", help="As for predict; all: every output.")
  parser.add_argument("--segmenter", default="pretrained:faces", help="Segmenter to run.")
  parser.add_argument(
    "--checkout", type=Path, default=ROOT, help="Checkout to run. Default: this one."
  )
  arguments = parser.parse_args()
  width, height = arguments.size
  print(f"{arguments.pictures} pictures of {width} x {height}, {os.cpu_count()} processors")
  with tempfile.TemporaryDirectory() as folder:
    measure(arguments, Path(folder))


if __name__ == "__main__":
  main()
