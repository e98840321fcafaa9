"""Times the pipeline on the embedded face generator, as it runs on a CPU with two cores.

python benchmarks/faces.py [--parts=disk,on_the_fly,restarts] [--rounds=3] [--pairs=3072]
python benchmarks/faces.py --candidates=200000

- disk: kept pairs per second of the stage `generate`, its files included, and the share of the time
  in which the device had nothing to do; beside PyTorch, which makes, encodes and writes the same
  kind of pairs one batch after the other, as the reference implementation does. JAX's two small
  splits, and the chunk that is under way when a split is full, count: they weigh with few pairs.
- on_the_fly: the time to make pairs and train on each once: through the disk, and on the fly.
- restarts: a step of the search with 8 restarts, and with 1.
- `--candidates` makes so many candidates, and prints how the process's memory grows.

Everything in one row is measured in turns, in the same run; the numbers are medians.
"""

import argparse
import concurrent.futures
import io
import itertools
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import compare_pytorch  # noqa: E402
from paper import idle_share, watch  # noqa: E402

from configs import dcgan_faces  # noqa: E402
from unseg_jax import generators  # noqa: E402
from unseg_jax.direction import directions, search  # noqa: E402
from unseg_jax.runtime import parallel  # noqa: E402
from unseg_jax.segmentation import train  # noqa: E402
from unseg_jax.synthesis import (
  generate,
  shards,
)

CHUNK, STEPS, RESTARTS = 64, 4, 8
numbers = itertools.count()


def golden_direction() -> np.ndarray:
  """The reference implementation's direction `[1, 100]`."""
  return np.load(ROOT / "tests" / "golden" / "search_dcgan_faces.npz")["d"][-1:]


def make_config(pairs: int) -> Any:
  """The face config with so many training pairs and the reference's default filters."""
  config = dcgan_faces.get_config()
  config.generate.roundness = 0.0
  config.generate.num_images.update({"train": pairs, "validation": 1, "test": 1})
  return config


def make_set(generator: Any, config: Any, folder: Path) -> None:
  """Runs the stage with a key of its own, so that nothing is there already."""
  key = jax.random.key(next(numbers))
  generate.generate(generator, config.generate, golden_direction(), key, folder)


def disk(rounds: int, pairs: int, generator: Any) -> None:
  """Prints kept pairs per second with their writing, and the device's idle time."""
  config = make_config(pairs)
  twin = compare_pytorch.torch_generator(generator.variables)
  direction = torch.tensor(golden_direction())
  compute = parallel.pmap_local(generate.candidates.make_candidates(generator, config.generate))
  idle = []

  def run_jax():
    in_flight = []
    with (
      tempfile.TemporaryDirectory() as folder,
      concurrent.futures.ThreadPoolExecutor(max_workers=1) as watcher,
      mock.patch.object(parallel, "pmap_local", lambda _: watch(compute, in_flight, watcher)),
    ):
      make_set(generator, config, Path(folder))
    # Splits differ in their keys. The first has nearly all pairs.
    first = [call for call in in_flight if call[0] is in_flight[0][0]]
    end = min(start for keys, start, _ in in_flight if keys is not first[0][0])
    idle.append(idle_share([(start, at.result()) for _, start, at in first], first[0][1], end))

  def run_torch():
    with tempfile.TemporaryDirectory() as folder:
      kept = 0
      while kept < pairs:
        latents = torch.randn(CHUNK, *generator.latent_shape)
        for found in compare_pytorch.torch_candidates(twin, config.generate, direction, latents):
          if found is not None and kept < pairs:
            write_files(Path(folder), kept, *found)
            kept += 1

  seconds = compare_pytorch.interleave(rounds, {"jax": run_jax, "torch": run_torch})
  ours, theirs = (pairs / value for value in seconds.values())
  print(
    f"kept pairs onto the disk: JAX {ours:.0f}/s, PyTorch {theirs:.0f}/s, ratio "
    f"{ours / theirs:.2f}; JAX's device idle {np.median(idle[1:]):.1%}",
    flush=True,
  )


def write_files(folder: Path, number: int, image: np.ndarray, mask: np.ndarray) -> None:
  """Writes a JPEG and a PNG."""
  for array, suffix, options in (
    (image, "jpg", {"quality": shards.JPEG_QUALITY, "subsampling": 0}),
    (np.where(mask, 255, 0).astype(np.uint8), "png", {}),
  ):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG" if suffix == "jpg" else "PNG", **options)
    (folder / f"{number}.{suffix}").write_bytes(buffer.getvalue())


def on_the_fly(rounds: int, pairs: int, generator: Any) -> None:
  """Prints the time from nothing to a U-Net trained on each pair once, by both ways."""
  config = make_config(pairs)
  config.train.steps = pairs // config.train.batch_size
  key = jax.random.key(0)
  update = train.make_step(config.train, key)
  start = train.initial_state(config.train, key)
  # Compiled once: a long run compiles once, too.
  kept = {name: getattr(parallel, name) for name in ("pmap", "pmap_local")}
  programs: dict[Any, Any] = {}

  def once(name):
    return lambda function, **options: programs.setdefault(
      (name, function.__module__, function.__qualname__), kept[name](function, **options)
    )

  def train(begin):
    state, losses = parallel.replicate(start), []
    advance = begin(start, update)
    for _ in range(config.train.steps):
      state, loss, _ = advance(state)
      losses.append(loss)
    jax.block_until_ready(losses)

  def through_disk():
    with tempfile.TemporaryDirectory() as folder:
      make_set(generator, config, Path(folder))
      source = shards.read(Path(folder), "train")
      train(train.from_disk(config.train, source, key))

  def at_once():
    train(train.from_generator(config, generator, golden_direction(), key))

  with (
    mock.patch.object(parallel, "pmap", once("pmap")),
    mock.patch.object(parallel, "pmap_local", once("pmap_local")),
  ):
    seconds = compare_pytorch.interleave(rounds, {"disk": through_disk, "fly": at_once})
  print(
    f"{pairs} pairs made and trained on, batch {config.train.batch_size}: through the disk "
    f"{seconds['disk']:.1f} s, on the fly {seconds['fly']:.1f} s, ratio "
    f"{seconds['disk'] / seconds['fly']:.2f}",
    flush=True,
  )


def restarts(rounds: int, generator: Any) -> None:
  """Prints the time of a search step with 1 restart and with 8."""
  config = dcgan_faces.get_config().search
  step = parallel.pmap(search.make_step(generator, config))
  indices = np.arange(config.batch_size)
  batch = jax.device_get(search.draw(generator, config, jax.random.key(1), indices))
  inputs = (parallel.replicate(generator.variables), *parallel.shard(batch))

  def runs(count):
    start = directions.initial(jax.random.key(0), count, generator.latent_shape)
    state = parallel.replicate(search.initial_state(config, start[:, None]))

    def run():
      nonlocal state
      for _ in range(STEPS):
        state, parts = step(state, *inputs)
        jax.block_until_ready(parts)

    return run

  seconds = compare_pytorch.interleave(rounds, {"one": runs(1), "many": runs(RESTARTS)})
  one, many = (value / STEPS for value in seconds.values())
  print(
    f"search step: {one * 1e3:.0f} ms with 1 restart, {many * 1e3:.0f} ms with {RESTARTS}, "
    f"{many / one:.2f} times as long",
    flush=True,
  )


def memory(candidates: int, generator: Any) -> None:
  """Makes candidates and prints the largest memory that the process had so far, as it goes."""
  config = make_config(1)
  config.generate.shard_candidates = 16_384  # The paper's, not the smaller one of the faces.
  # No set is ever full; the run ends with the shard that reaches the number of candidates.
  config.generate.num_images.train = 10 * candidates
  made, write = [], shards.write_shard

  class Enough(Exception):
    pass

  def written(path, records, counts):
    write(path, records, counts)
    made.append(counts["candidates"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    size = sum(map(len, records)) / 2**20
    print(
      f"{sum(made):>9,} candidates: {peak:.2f} GiB at most; this shard has {len(records):,} "
      f"pairs, {size:.0f} MiB",
      flush=True,
    )
    if sum(made) >= candidates:
      raise Enough

  start = time.perf_counter()
  with tempfile.TemporaryDirectory() as folder:
    with mock.patch.object(synthetic, "write_shard", written):
      try:
        make_set(generator, config, Path(folder))
      except Enough:
        pass
  print(f"{sum(made) / (time.perf_counter() - start):.0f} candidates/s")


def main() -> None:
  """Runs what the flags choose."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--parts", default="disk,on_the_fly,restarts", help="comma-separated")
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--pairs", type=int, default=3072)
  parser.add_argument("--candidates", type=int, help="only measure the memory, over so many")
  arguments = parser.parse_args()
  generator = generators.load("pretrained:dcgan_faces")
  if arguments.candidates:
    return memory(arguments.candidates, generator)
  parts = {
    "disk": lambda: disk(arguments.rounds, arguments.pairs, generator),
    "on_the_fly": lambda: on_the_fly(arguments.rounds, arguments.pairs, generator),
    "restarts": lambda: restarts(arguments.rounds, generator),
  }
  if unknown := set(arguments.parts.split(",")) - set(parts):
    parser.error(f"unknown parts {sorted(unknown)}; expected {', '.join(parts)}")
  for name in arguments.parts.split(","):
    parts[name]()


if __name__ == "__main__":
  main()
