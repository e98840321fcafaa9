"""Times an evaluation on synthetic photographs, and its share outside the network.

python benchmarks/evaluate.py [--pictures 5000] [--format jpg]

The script writes pictures of 400 x 300 pixels with masks to a temporary folder, in the layout of
ECSSD. It evaluates them as `configs/evaluate.py` does: reading, resizing, the network, resizing to
the mask, scoring. Then it runs the network alone on the same number of batches of the same shape.
The difference is the time outside the network. The table shows wall time and CPU time over all
threads; the CPU time is more reliable on a busy machine. The two runs alternate in parts, so that
other load affects both. Saliency metrics and refinement run on fewer pictures.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from common import command_line
from unseg_jax.evaluation import benchmarks, evaluate
from unseg_jax.evaluation.source import Source
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.inference.views import resize_shorter_side
from unseg_jax.segmentation.unet import Unet

WIDTH, HEIGHT = 400, 300
WIDTHS, IMAGE_SIZE, BATCH = (16, 32, 64, 128, 128), 128, 8
PART = 500  # Pictures between two runs of the network alone.
FEWER = 200  # Pictures for the slow options.
OPTIONS = {
  "with saliency": {"with_saliency": True},
  "with guided filter": {"refine": "guided"},
}


def make_folders(root: Path, count: int, suffix: str) -> Source:
  """Writes pictures of ellipses on noisy gradients, with their masks; opens them."""
  ecssd = benchmarks.get("ecssd")
  images, masks = root / ecssd.images, root / ecssd.masks
  images.mkdir(parents=True)
  masks.mkdir(parents=True)
  rng = np.random.default_rng(0)
  rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
  # Moderate noise, like a photograph's texture; stronger noise would make PNG incompressible.
  noise = rng.normal(0, 6, (HEIGHT + 64, WIDTH + 64, 3)).astype(np.float32)
  for number in range(count):
    y, x = rng.uniform(0.3, 0.7, 2) * (HEIGHT, WIDTH)
    height, width = rng.uniform(0.1, 0.4, 2) * HEIGHT
    mask = ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 < 1
    slopes = rng.uniform(-60, 60, (2, 3)).astype(np.float32)
    slope = (
      s * axis[..., None] for s, axis in zip(slopes, (rows / HEIGHT, columns / WIDTH), strict=True)
    )
    top, left = rng.integers(0, 64, 2)
    image = (
      noise[top:, left:][:HEIGHT, :WIDTH] + sum(slope) + rng.integers(80, 170, 3, dtype=np.uint8)
    )
    image[mask] += rng.uniform(-70, 70, 3)
    picture = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    picture.save(images / f"{number:05}.{suffix}")
    Image.fromarray(mask.astype(np.uint8) * 255).save(masks / f"{number:05}.png", compress_level=1)
  return benchmarks.open_pairs(ecssd, root)


def make_segmenter() -> Segmenter:
  """Returns a segmenter with random weights."""
  network = Unet(WIDTHS)
  variables = jax.jit(network.init)(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
  return Segmenter.create(jax.device_get(variables), WIDTHS, IMAGE_SIZE)


class Clock:
  """Sums the wall time and the CPU time of several runs."""

  def __init__(self):
    self.wall = self.processor = 0.0

  def __call__(self, run: Callable[[], Any]) -> Any:
    wall, processor = time.perf_counter(), time.process_time()
    result = run()
    self.wall += time.perf_counter() - wall
    self.processor += time.process_time() - processor
    return result


def measure(segmenter: Segmenter, source: Source) -> None:
  """Times the paper's metrics, the network alone, and the options; prints a table."""
  small = [
    resize_shorter_side(image, IMAGE_SIZE) for _, image, _ in itertools.islice(source, BATCH)
  ]
  batch = (small * BATCH)[:BATCH]
  segmenter.small_logits(batch)  # Compiles.
  pairs = ((image, mask) for _, image, mask in source)
  whole, network = Clock(), Clock()
  for start in range(0, len(source), PART):
    number = min(PART, len(source) - start)
    part = itertools.islice(pairs, number)
    whole(lambda part=part: evaluate.evaluate(segmenter, part, BATCH))
    batches = -(-number // BATCH)
    network(lambda batches=batches: [segmenter.small_logits(batch) for _ in range(batches)])
  rows = [("paper's metrics", len(source), whole), ("network alone", len(source), network)]
  fewer = min(FEWER, len(source))
  for name, options in OPTIONS.items():
    clock = Clock()
    part = ((image, mask) for _, image, mask in itertools.islice(source, fewer))
    clock(lambda part=part, options=options: evaluate.evaluate(segmenter, part, BATCH, **options))
    rows.append((name, fewer, clock))
  print(f"\n| {'':20} | pictures | seconds | pictures/s | processor seconds | ms/picture |")
  print(f"| {'-' * 20} | -------: | ------: | ---------: | ----------------: | ---------: |")
  for name, number, clock in rows:
    print(
      f"| {name:20} | {number:8} | {clock.wall:7.1f} | {number / clock.wall:10.1f} "
      f"| {clock.processor:17.1f} | {1e3 * clock.processor / number:10.2f} |"
    )
  print(
    f"\noutside the network: {1 - network.wall / whole.wall:.0%} of the time, "
    f"{1 - network.processor / whole.processor:.0%} of the processor's (goal: below 33%)"
  )


def main() -> None:
  """Makes the pictures, runs the evaluations and prints their times."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument(
    "--pictures", type=command_line.positive, default=5000, help="Number of images."
  )
  parser.add_argument(
    "--format", choices=("jpg", "png"), default="jpg", help="Format of the images."
  )
  arguments = command_line.parse(parser)
  print(
    f"JAX {jax.__version__} on {jax.default_backend()}, {len(os.sched_getaffinity(0))} cores; "
    f"{arguments.pictures} {arguments.format} pictures of {WIDTH} x {HEIGHT}, U-Net {WIDTHS} at "
    f"{IMAGE_SIZE}, batches of {BATCH}",
    flush=True,
  )
  segmenter = make_segmenter()
  with tempfile.TemporaryDirectory() as folder:
    source = make_folders(Path(folder), arguments.pictures, arguments.format)
    measure(segmenter, source)


if __name__ == "__main__":
  main()
