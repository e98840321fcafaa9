"""Measures how many pairs per second the host writes and reads if devices take no time.

python benchmarks/host.py [--parts=write,read,steps] [--sizes=128,512] [--workers=0,1,2]
  [--pairs=2048] [--rounds=3] [--json=FILE]

- write: the stage `generate` from the candidates' arrays on: fetching, encoding, shards. Every
  candidate is there already, and kept.
- read: the batches of the stage `train`: the order of the pairs, reading, decoding, stacking. No
  step follows.
- CPU: milliseconds of all processes for a pair; of which the process that feeds the devices needs
  `serial`, which more processors do not make shorter.
- cores: processors that what is asked for needs; `-` where the serial part alone is too slow.
- steps: what Python needs for a step of search and training whose device work is a single addition.

The rates take turns, and are medians. What chips ask for is what `tpu.py` estimates for the paper's
generator and U-Net in bfloat16, with 30 % of the candidates kept. `--json` receives the
milliseconds, from which `tpu.py --host=FILE` projects the paper's run.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
from PIL import Image

from common import command_line, experiments
from common.rate_table import significant
from unseg_jax.direction import search
from unseg_jax.generators import Generator, normal_latents
from unseg_jax.runtime import parallel, progress, workers
from unseg_jax.segmentation import batches, step, train
from unseg_jax.synthesis import generate, records, shards

PARTS = ("write", "read", "steps")
CHUNK = 64
BATCH = 128
STEPS = 2_000
# Pairs of 128 x 128 a second of one chip: a U-Net step of 128 takes 107 ms, 64 BigBiGAN candidates
# 41.5 ms, of which 30 % are kept.
ASKED = {"v5e": {"write": 0.3 * 64 / 41.5e-3, "read": 128 / 107e-3}}
HEADINGS = ("part", "pixels", "workers", "pairs/s", "CPU ms", "serial ms")


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a pair costs.

  Attributes:
    seconds: wall time.
    cpu: processor time of all processes.
    serial: processor time of the process that feeds the devices; equal to `cpu` where it is alone.
  """

  seconds: float
  cpu: float
  serial: float


def pictures(size: int) -> tuple[np.ndarray, np.ndarray]:
  """A chunk of pictures `[CHUNK, S, S, 3]` uint8 with some noise, and round masks."""
  generator = np.random.default_rng(0)
  coarse = generator.integers(0, 256, (CHUNK, 8, 8, 3), dtype=np.uint8)
  smooth = [Image.fromarray(x).resize((size, size), Image.Resampling.BICUBIC) for x in coarse]
  noisy = np.stack(smooth) + generator.normal(0, 6, (CHUNK, size, size, 3))
  rows, columns = np.mgrid[:size, :size] / size
  centres = generator.uniform(0.3, 0.7, (2, CHUNK, 1, 1))
  masks = (rows - centres[0]) ** 2 + (columns - centres[1]) ** 2 < 0.07
  return np.clip(noisy, 0, 255).astype(np.uint8), masks


def processor_seconds() -> tuple[float, float]:
  """Processor time so far, of all processes and of this one."""
  tick = os.sysconf("SC_CLK_TCK")
  others = 0.0
  for child in multiprocessing.active_children():
    fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
    others += (int(fields[11]) + int(fields[12])) / tick  # User and system.
  own = time.process_time()
  return own + others, own


def cost(pairs: int, work: Callable[[], None]) -> Cost:
  """Runs what handles so many pairs, and measures it."""
  start, before = time.perf_counter(), processor_seconds()
  work()
  after, seconds = processor_seconds(), time.perf_counter() - start
  used = [end - begin for end, begin in zip(after, before, strict=True)]
  return Cost(seconds / pairs, used[0] / pairs, used[1] / pairs)


def write(size: int, worker_count: int, pairs: int, folder: Path) -> Cost:
  """The cost of a pair of the stage `generate`, whose candidates are there already."""
  images, masks = map(jax.numpy.asarray, pictures(size))
  everything = np.ones(CHUNK, bool)
  chunk = {"image": images, "mask": masks, "label": np.zeros(CHUNK, np.int32)}
  chunk = jax.tree.map(jax.numpy.asarray, chunk | {"verdicts": {"all": everything}})
  made = jax.tree.map(lambda x: x[None], chunk)
  config = experiments.load("bigbigan.py").generate
  config.num_images.train = pairs
  config.update({"chunk": CHUNK, "shard_candidates": max(CHUNK, pairs // 4 // CHUNK * CHUNK)})
  with workers.executor(worker_count) as encoders:
    _warm_up(encoders, worker_count)
    waiting = generate.WAITING_CHUNKS + worker_count
    split = generate._Split(
      "train", config, folder, lambda _: made, None, records.MASK_BITS, encoders, waiting
    )
    with mock.patch.object(parallel, "local_device_count", lambda: 1):
      found = cost(pairs, lambda: generate._generate_split(split))
  return found


def _warm_up(pool, worker_count: int) -> None:
  """Waits until every worker process has imported what it needs."""
  image, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), bool)
  tasks = [pool.submit(records.encode, image, mask, 0, 0) for _ in range(64 * worker_count)]
  for task in tasks:
    task.result()


def read(size: int, worker_count: int, pairs: int, folder: Path) -> Cost:
  """The cost of a pair of the stage `train`, without its steps."""
  images, masks = pictures(size)
  path = shards.shard_path(folder, "train", 0)
  if not path.exists():
    encoded = records.encode_all(images, masks, np.zeros(CHUNK, int), np.arange(CHUNK))
    shards.write_shard(path, encoded * (-(-pairs // CHUNK)), {})
  split = records.Split((str(path),), (-(-pairs // CHUNK) * CHUNK,))
  config = experiments.load("bigbigan.py").train
  first = 4 + 2 * worker_count  # Batches until every worker has imported what it needs.
  counted = -(-pairs // BATCH)
  config.update({"batch_size": BATCH, "image_size": size, "steps": 2 * (first + counted)})
  config.update({"features": (2, 2), "dtype": "float32"})
  state = step.initial_state(config, jax.random.key(0))
  upcoming = batches.from_disk([split], [1.0], config, jax.random.key(1), state, worker_count)
  _take(first, upcoming)
  found = cost(counted * BATCH, lambda: _take(counted, upcoming))
  upcoming.close()
  return found


def _take(count: int, upcoming: Iterator[Any]) -> None:
  for _ in range(count):
    next(upcoming)


def python_time(folder: Path) -> dict[str, float]:
  """Seconds that a step of each loop takes whose device work is a single addition."""
  return {"search": _search_time(folder / "search"), "train": _train_time(folder / "train")}


def _search_time(folder: Path) -> float:
  config = experiments.load("dcgan_faces.py").search
  config.update({"steps": STEPS, "save_every": STEPS, "dtype": "float32"})
  config.update({"batch_size": parallel.device_count()})

  def make_drawing_step(generator, config, key):
    return lambda state, *_: (
      state.replace(step=state.step + 1),
      {"loss": state.directions.sum(-1)},
    )

  with mock.patch.object(search, "make_drawing_step", make_drawing_step), _Clock.patched() as clock:
    search.search(black_images(), config, jax.random.key(0), folder)
  return clock.per_step()


def _train_time(folder: Path) -> float:
  config = experiments.load("dcgan_faces.py").train
  config.update({"steps": STEPS, "checkpoint_every": STEPS})
  config.update({"features": (2, 2), "dtype": "float32"})
  batches_of_nothing = itertools.repeat(
    {"position": parallel.shard(np.arange(parallel.device_count()))}
  )

  def make_step(config, key):
    return lambda state, batch: (state.replace(step=state.step + 1), batch["position"].sum() * 0.0)

  with mock.patch.object(train, "make_step", make_step), _Clock.patched() as clock:
    train.train(
      config, lambda _: batches_of_nothing, lambda _: {"iou": 0.0}, jax.random.key(0), folder
    )
  return clock.per_step()


class _Clock:
  """A progress bar that notes the time of every step."""

  def __init__(self):
    self.times = []

  @classmethod
  @contextlib.contextmanager
  def patched(cls) -> Iterator["_Clock"]:
    """Takes the place of every progress bar."""
    clock = cls()
    with mock.patch.object(progress, "bar", lambda *_, **__: contextlib.nullcontext(clock)):
      yield clock

  def update(self, n: int = 1) -> None:
    self.times.append(time.perf_counter())

  def set_postfix(self, *_: Any, **__: Any) -> None:
    pass

  def per_step(self) -> float:
    """Seconds of a step, without those that wait for a compiler."""
    counted = self.times[len(self.times) // 4 : -1]
    return (counted[-1] - counted[0]) / (len(counted) - 1)


def black_images() -> Generator:
  """A generator that computes nothing."""
  return Generator(
    variables={},
    image_size=8,
    latent_shape=(4,),
    num_classes=None,
    sample_latents=normal_latents((4,)),
    generate=lambda variables, latents, labels: jax.numpy.zeros((len(latents), 8, 8, 3)),
    identity="black",
  )


def measure(
  parts: Sequence[str], sizes: Sequence[int], counts: Sequence[int], pairs: int, rounds: int
) -> dict[tuple[str, int, int], Cost]:
  """Medians by part, size and number of worker processes; these take turns."""
  found: dict[tuple[str, int, int], list[Cost]] = {}
  functions = {"write": write, "read": read}
  with tempfile.TemporaryDirectory() as name:
    for _ in range(rounds):
      for part, size, count in itertools.product(parts, sizes, counts):
        if part in functions:
          folder = Path(name) / f"{part}-{size}"
          # Of large pictures fewer: as many bytes, but a few batches at least.
          scaled = max(BATCH, pairs * 128**2 // size**2)
          found.setdefault((part, size, count), []).append(
            functions[part](size, count, scaled, folder)
          )
          if part == "write":
            shutil.rmtree(folder)
  return {key: _median(costs) for key, costs in found.items()}


def _median(costs: Sequence[Cost]) -> Cost:
  names = [field.name for field in dataclasses.fields(Cost)]
  return Cost(*(statistics.median(getattr(cost, name) for cost in costs) for name in names))


def cells(key: tuple[str, int, int], cost: Cost) -> list[str]:
  """A row of the table, as `HEADINGS` names its columns."""
  part, size, count = key
  figures = (1 / cost.seconds, 1e3 * cost.cpu, 1e3 * cost.serial)
  return [part, str(size), str(count), *map(significant, figures)]


def cores(cost: Cost, asked: float) -> str:
  """Processors that so many pairs a second need."""
  return "-" if cost.serial * asked > 1 else significant(cost.cpu * asked)


def print_demand(found: dict[tuple[str, int, int], Cost]) -> None:
  """Prints what chips ask for at the smallest size, and how many processors that takes."""
  smallest = min((size for _, size, _ in found), default=0)
  with_workers = {key[0]: cost for key, cost in found.items() if key[1] == smallest and key[2]}
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
  parser.add_argument("--pairs", type=positive, default=2048, help="Number of pairs of 128 x 128.")
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
      for loop, seconds in python_time(Path(name)).items():
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
