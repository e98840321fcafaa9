"""Times one picture through a segmenter in JAX and through its exported ONNX file, on the CPU.

python benchmarks/export.py [--segmenter pretrained:faces] [--sizes 64,128,320] [--rounds 20]

The network alone, on a square picture of each size, as `Segmenter.small_logits` runs it. Both take
turns on the same noise, after one call each that is not counted; first they are checked to find the
same probabilities.
"""

import argparse
import os
import tempfile
from pathlib import Path

import jax
import numpy as np
import onnxruntime

import command_line
import timing
from unseg_jax import Segmenter, export


def measure(ours: Segmenter, exported: Segmenter, size: int, rounds: int) -> None:
  """Prints a row: the size, the milliseconds of either, their ratio, how far they differ."""
  picture = np.random.default_rng(size).integers(0, 256, (size, size, 3), np.uint8)
  runs = {
    "JAX": lambda: ours.small_logits([picture])[0],
    "onnxruntime": lambda: exported.small_logits([picture])[0],
  }
  with np.errstate(over="ignore"):
    found = [1 / (1 + np.exp(-run())) for run in runs.values()]
  seconds = timing.in_turns(rounds, runs)
  print(
    f"| {size} x {size} | {1e3 * seconds['JAX']:.2f} | {1e3 * seconds['onnxruntime']:.2f} "
    f"| {seconds['JAX'] / seconds['onnxruntime']:.2f} | {np.abs(found[0] - found[1]).max():.1e} |",
    flush=True,
  )


def sizes(text: str) -> list[int]:
  """Whole numbers, split at commas."""
  return [command_line.positive(number) for number in text.split(",")]


def main() -> None:
  """Exports the segmenter to a temporary file and prints what a picture takes."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--segmenter", default="pretrained:faces", help="what is exported")
  parser.add_argument("--sizes", type=sizes, default=[64, 128, 320], help="sides, in pixels")
  parser.add_argument("--rounds", type=command_line.positive, default=20, help="calls of each")
  arguments = parser.parse_args()
  ours = Segmenter.restore(arguments.segmenter)
  with tempfile.TemporaryDirectory() as folder:
    path = export.export(arguments.segmenter, str(Path(folder) / "segmenter.onnx"))
    megabytes = path.stat().st_size / 1e6
    exported = Segmenter.restore(path)
  print(
    f"JAX {jax.__version__} on {jax.default_backend()}, onnxruntime {onnxruntime.__version__}, "
    f"{len(os.sched_getaffinity(0))} cores; U-Net {ours.widths}, {megabytes:.1f} MB"
  )
  print("| picture | JAX, ms | onnxruntime, ms | ratio | probabilities differ by |")
  print("| --- | ---: | ---: | ---: | ---: |")
  for size in arguments.sizes:
    measure(ours, exported, size, arguments.rounds)


if __name__ == "__main__":
  main()
