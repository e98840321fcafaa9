"""Times `python -m unseg_jax.predict` over many pictures, on several devices and in processes.

python benchmarks/predict.py [--pictures=2000] [--devices=1,4] [--processes=1,2]
  [--outputs=mask] [--segmenter=pretrained:faces] [--checkout=FOLDER]

Makes photograph-like JPEG files of 400 x 300 in a temporary folder and runs the command over them:
with each number of forced CPU devices in one process, then in each number of processes with one
device. The first row is a tenth of the pictures, whose time is mostly that of starting; the rate is
that of the others, beyond it. Memory is the largest resident size of the processes together, when
half of the pictures were done and at the end. `--checkout` runs the package of another checkout,
for a comparison; `--outputs=all` leaves the flag out, which old ones do not know.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from common import command_line
from unseg_jax.images import reading

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "unseg_jax" / "pretrained" / "example" / "astronaut_head.png"
HEIGHT, WIDTH = 300, 400
LOOK_SECONDS = 0.1


def make_pictures(folder: Path, count: int) -> None:
  """Writes pictures of one photograph, each turned, cropped and with noise of its own."""
  photograph = Image.fromarray(reading.read_picture(EXAMPLE)).resize((600, 600))
  random = np.random.default_rng(0)
  folder.mkdir()
  for number in range(count):
    left, top = random.integers(0, (600 - WIDTH, 600 - HEIGHT))
    picture = photograph.rotate(random.uniform(-20, 20)).crop(
      (left, top, left + WIDTH, top + HEIGHT)
    )
    noisy = np.asarray(picture) + random.normal(0, 4, (HEIGHT, WIDTH, 3))
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / f"{number:06}.jpg")


def run(
  pictures: Path, output: Path, flags: Sequence[str], devices: int, processes: int, checkout: Path
) -> tuple[float, list[int]]:
  """Runs the command; returns the seconds, and the resident bytes over the time."""
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
    return 0  # It has ended.


def measure(arguments: argparse.Namespace, folder: Path) -> None:
  """Prints a row for each way to run the command."""
  few = max(1, arguments.pictures // 10)
  make_pictures(folder / "few", few)
  make_pictures(folder / "many", arguments.pictures)
  flags = [f"--segmenter={arguments.segmenter}"]
  if arguments.outputs != "all":
    flags.append(f"--outputs={arguments.outputs}")
  print("| processes | devices of each | seconds | pictures/s beyond the first | GiB, half, end |")
  print("| --- | --- | --- | --- | --- |", flush=True)
  ways = [(1, devices) for devices in arguments.devices]
  ways += [(processes, 1) for processes in arguments.processes if processes > 1]
  for processes, devices in ways:
    taken = {}
    for name in ("few", "many"):
      output = folder / f"{name}-{processes}-{devices}"
      way = (devices, processes, arguments.checkout)
      taken[name], sizes = run(folder / name, output, flags, *way)
    rate = (arguments.pictures - few) / (taken["many"] - taken["few"])
    half, end = max(sizes[: len(sizes) // 2], default=0), max(sizes, default=0)
    print(
      f"| {processes} | {devices} | {taken['many']:.1f} | {rate:.1f} "
      f"| {half / 2**30:.2f}, {end / 2**30:.2f} |",
      flush=True,
    )


def numbers(text: str) -> list[int]:
  """Whole numbers, separated by commas."""
  return [command_line.positive(part) for part in text.split(",")]


def main() -> None:
  """Measures what the flags ask for."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--pictures", type=command_line.positive, default=2000)
  parser.add_argument("--devices", type=numbers, default=[1, 4])
  parser.add_argument("--processes", type=numbers, default=[1, 2])
  parser.add_argument("--outputs", default="mask", help="as of predict, or all")
  parser.add_argument("--segmenter", default="pretrained:faces")
  parser.add_argument("--checkout", type=Path, default=ROOT, help="whose package runs")
  arguments = parser.parse_args()
  print(f"{arguments.pictures} pictures of {WIDTH} x {HEIGHT}, {os.cpu_count()} processors")
  with tempfile.TemporaryDirectory() as folder:
    measure(arguments, Path(folder))


if __name__ == "__main__":
  main()
