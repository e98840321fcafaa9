"""Compares the speed of a segmenter in JAX with that of its exported ONNX file, on the CPU.

python benchmarks/export.py [--segmenter pretrained:faces] [--sizes 64,128,320] [--rounds 20]

Square pictures of each size are run through the network alone. A picture of 640 x 480 is segmented
as a user would: resized, run through the network, and resized back. Timings of the two alternate,
on the same noise. The first call is listed separately, since JAX compiles for each size; its
probabilities are compared.
"""

import argparse
import functools
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
import onnxruntime

from common import command_line, timing
from unseg_jax import Segmenter, export
from unseg_jax.inference.views import foreground


def measure(name: str, runs: Mapping[str, Callable[[], np.ndarray]], rounds: int) -> None:
  """Prints a row: milliseconds of both, of their first calls, and the largest difference."""
  found, first = [], []
  for run in runs.values():
    start = time.perf_counter()
    found.append(run())
    first.append(time.perf_counter() - start)
  seconds = list(timing.in_turns(rounds, runs).values())
  cells = [f"{1e3 * each:.2f}" for each in (*seconds, *first)]
  cells += [f"{seconds[0] / seconds[1]:.2f}", f"{np.abs(found[0] - found[1]).max():.1e}"]
  print(f"| {name} | {' | '.join(cells)} |", flush=True)


def noise(height: int, width: int) -> np.ndarray:
  """Returns a picture of noise, `[height, width, 3]` uint8."""
  return np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)


def network(segmenter: Segmenter, picture: np.ndarray) -> np.ndarray:
  """Returns the network's probability for an unresized picture, `[H, W]` float32."""
  return foreground(segmenter.small_logits([picture])[0], picture.shape[:2])


def sizes(text: str) -> list[int]:
  """Parses integers separated by commas."""
  return [command_line.positive(number) for number in text.split(",")]


def main() -> None:
  """Exports the segmenter to a temporary file and prints the times."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--segmenter", default="pretrained:faces", help="Segmenter to export.")
  parser.add_argument("--sizes", type=sizes, default=[64, 128, 320], help="Image sides in pixels.")
  parser.add_argument("--rounds", type=command_line.positive, default=20, help="Number of calls.")
  arguments = command_line.parse(parser)
  ours = Segmenter.restore(arguments.segmenter)
  with tempfile.TemporaryDirectory() as folder:
    path = export.export(arguments.segmenter, str(Path(folder) / "segmenter.onnx"))
    megabytes = path.stat().st_size / 1e6
    exported = Segmenter.restore(path)
  print(
    f"JAX {jax.__version__} on {jax.default_backend()}, onnxruntime {onnxruntime.__version__}, "
    f"{len(os.sched_getaffinity(0))} cores; U-Net {ours.features}, {megabytes:.1f} MB"
  )
  print(
    "| picture | JAX, ms | onnxruntime, ms | first: JAX | first: onnxruntime | ratio "
    "| probabilities differ by |"
  )
  print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
  segmenters = {"JAX": ours, "onnxruntime": exported}
  works = [(f"{size} x {size}", noise(size, size), network) for size in arguments.sizes]
  works.append(("photograph", noise(480, 640), Segmenter.__call__))
  for name, picture, work in works:
    runs = {each: functools.partial(work, segmenters[each], picture) for each in segmenters}
    measure(name, runs, arguments.rounds)


if __name__ == "__main__":
  main()
