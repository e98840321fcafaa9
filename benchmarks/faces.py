"""Times the pipeline on the shipped face generator; sized for a CPU with two cores.

python benchmarks/faces.py [--parts=disk,on_the_fly,restarts] [--rounds=3] [--pairs=3072]
  [--chunk=64] [--restarts=8] [--steps=4]
python benchmarks/faces.py --candidates=200000 [--shard=16384]

- disk: kept pairs per second of the stage `generate`, including its files, and the device's share
  of idle time. For comparison, PyTorch makes, encodes and writes such pairs one batch after the
  other, as the reference implementation does. JAX's rate includes its two small splits and the last
  chunk of each split, which lower it if there are few pairs.
- on_the_fly: the time to make pairs and train on each once, through the disk and on the fly.
- restarts: the time of a search step with `--restarts`, and with 1.
- `--candidates` makes this many candidates and prints the process's peak memory after each shard.

The alternatives of one row alternate in the same run; the numbers are medians.
"""

import argparse
import contextlib
import itertools
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import ml_collections
import numpy as np

from common import cases, command_line, data_set_time, timing
from unseg_jax import generators
from unseg_jax.generators import Generator
from unseg_jax.runtime import parallel
from unseg_jax.segmentation import batches
from unseg_jax.segmentation import step as training
from unseg_jax.synthesis import candidates, generate, shards
from unseg_jax.synthesis import on_the_fly as fly

PARTS = ("disk", "on_the_fly", "restarts")


def make_config(pairs: int, chunk: int) -> ml_collections.ConfigDict:
  """Returns the face config with this number of training pairs and this chunk size."""
  config = cases.faces_config()
  config.generate.chunk = chunk
  config.generate.num_images.update({"train": pairs, "validation": 1, "test": 1})
  return config


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
  """Yields a folder that is removed afterwards."""
  with tempfile.TemporaryDirectory() as folder:
    yield Path(folder)


def disk(rounds: int, config: ml_collections.ConfigDict, generator: Generator) -> None:
  """Prints kept pairs per second, including writing, and the device's idle time."""
  from twins import candidates as torch_candidates
  from twins import dcgan

  config, direction = config.generate, cases.faces_direction()
  pairs = config.num_images.train
  twin = dcgan.generator(generator.variables)
  compute = parallel.pmap_local(candidates.make_candidates(generator, config))
  keys, idle = map(jax.random.key, itertools.count()), []

  def run_jax():
    with temporary_folder() as folder:
      made = data_set_time.make(compute, generator, config, direction, next(keys), folder)
    idle.append(made.idle)

  def run_torch():
    with temporary_folder() as folder:
      torch_candidates.write_data_set(twin, config, direction, pairs, folder)

  seconds = timing.in_turns(rounds, {"jax": run_jax, "torch": run_torch})
  ours, theirs = (pairs / value for value in seconds.values())
  print(
    f"kept pairs onto the disk: JAX {ours:.0f}/s, PyTorch {theirs:.0f}/s, ratio "
    f"{ours / theirs:.2f}; JAX's device idle {np.median(idle[1:]):.1%}",
    flush=True,
  )


def on_the_fly(rounds: int, config: ml_collections.ConfigDict, generator: Generator) -> None:
  """Prints the time to make pairs and train a U-Net on each once, in both ways."""
  pairs, direction = config.generate.num_images.train, cases.faces_direction()
  steps = config.train.steps = pairs // config.train.batch_size
  key, keys = jax.random.key(0), map(jax.random.key, itertools.count())
  step = parallel.pmap(training.make_step(config.train, key), donate_argnums=(0,))
  start = training.initial_state(config.train, key)

  def train_once(pairs):
    state, losses = parallel.replicate(start), []
    for batch in itertools.islice(pairs, steps):
      state, loss = step(state, batch)
      losses.append(loss)
    jax.block_until_ready(losses)

  def through_disk():
    with temporary_folder() as folder:
      generate.generate(generator, config.generate, direction, next(keys), folder)
      source = shards.read(folder, "train")
      train_once(batches.from_disk([source], [1.0], config.train, key, start))

  def at_once():
    train_once(fly.batches(generator, direction, config, key, start))

  with compiled_once():
    seconds = timing.in_turns(rounds, {"disk": through_disk, "fly": at_once})
  print(
    f"{pairs} pairs made and trained on, batch {config.train.batch_size}: through the disk "
    f"{seconds['disk']:.3g} s, on the fly {seconds['fly']:.3g} s, ratio "
    f"{seconds['disk'] / seconds['fly']:.2f}",
    flush=True,
  )


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
  """Shares compiled programs between calls inside the context, as in one long run."""
  programs: dict[Any, Any] = {}

  def once(name: str) -> Callable[..., Any]:
    compiled = getattr(parallel, name)
    return lambda function, **options: programs.setdefault(
      (name, function.__module__, function.__qualname__), compiled(function, **options)
    )

  names = ("pmap", "pmap_local")
  with mock.patch.multiple(parallel, **{name: once(name) for name in names}):
    yield


def restarts(rounds: int, count: int, steps: int, generator: Generator) -> None:
  """Prints the time of a search step with 1 restart and with several."""
  config = cases.faces_config().search
  step = parallel.pmap(cases.search_step(generator, config), donate_argnums=(0,))

  def runs(count):
    state, *fixed = cases.search_arguments(generator, config, count)
    advance = timing.stepping(lambda state: step(state, *fixed), state)
    return lambda: [jax.block_until_ready(advance()) for _ in range(steps)]

  seconds = timing.in_turns(rounds, {"one": runs(1), "many": runs(count)})
  one, many = (value / steps for value in seconds.values())
  print(
    f"search step: {one * 1e3:.0f} ms with 1 restart, {many * 1e3:.0f} ms with {count}, "
    f"{many / one:.2f} times as long",
    flush=True,
  )


def memory(wanted: int, config: ml_collections.ConfigDict, generator: Generator) -> None:
  """Makes candidates and prints the process's peak memory after each shard."""
  config.num_images.train = 10 * wanted  # Large enough never to be reached.
  made, write = [], shards.write_shard

  class Enough(Exception):
    """Ends the run when a shard reaches the number of candidates."""

  def written(path, records, counts):
    write(path, records, counts)
    made.append(counts["candidates"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    size = sum(map(len, records)) / 2**20
    print(
      f"{sum(made):>9,} candidates: {peak:.2f} GiB at most; this shard has {len(records):,} "
      f"pairs, {size:.3g} MiB",
      flush=True,
    )
    if sum(made) >= wanted:
      raise Enough

  start, key = time.perf_counter(), jax.random.key(0)
  with temporary_folder() as folder, mock.patch.object(shards, "write_shard", written):
    with contextlib.suppress(Enough):
      generate.generate(generator, config, cases.faces_direction(), key, folder)
  print(f"{sum(made) / (time.perf_counter() - start):.0f} candidates/s")


def main() -> None:
  """Runs the parts that the flags select."""
  positive, parts = command_line.positive, command_line.names(PARTS)
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument(
    "--parts", type=parts, default=list(PARTS), help="Parts to run, comma-separated."
  )
  parser.add_argument("--rounds", type=positive, default=3, help="Number of timings.")
  parser.add_argument(
    "--pairs", type=positive, default=3072, help="Pairs to generate and train on."
  )
  parser.add_argument("--chunk", type=positive, default=64, help="Candidates at once.")
  parser.add_argument("--restarts", type=positive, default=8, help="Restarts of the search.")
  parser.add_argument("--steps", type=positive, default=4, help="Search steps per timing.")
  parser.add_argument("--candidates", type=positive, help="Measure only memory, over this many.")
  parser.add_argument("--shard", type=positive, default=16_384, help="Shard size for --candidates.")
  arguments = command_line.parse(parser)
  generator = generators.load(cases.faces_config().generator)
  config = make_config(arguments.pairs, arguments.chunk)
  if arguments.candidates:
    config.generate.shard_candidates = arguments.shard
    return memory(arguments.candidates, config.generate, generator)
  run = {
    "disk": lambda: disk(arguments.rounds, config, generator),
    "on_the_fly": lambda: on_the_fly(arguments.rounds, config, generator),
    "restarts": lambda: restarts(arguments.rounds, arguments.restarts, arguments.steps, generator),
  }
  for name in arguments.parts:
    run[name]()


if __name__ == "__main__":
  main()
