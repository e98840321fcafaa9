"""Compares the speed of this package with PyTorch on the same CPU, in one run.

python benchmarks/compare_pytorch.py [--rounds=5] [--steps=4] [--chunk=64] [--batch=16]
  [--divisor=1]

Each measurement has a twin in PyTorch with the same network, weights, batch and number of threads.
First their results are compared. Then their timings alternate, so that other load on the machine
affects both. The table shows medians over the rounds, and the ratio of PyTorch's time to JAX's:
above 1, JAX is faster. Nothing is written to disk.
"""

import argparse
import copy
import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

from common import cases, command_line, published, timing
from twins import candidates as torch_candidates
from twins import dcgan as torch_dcgan
from twins import unet as torch_unet
from twins.search import Search
from unseg_jax import default_config, generators
from unseg_jax.generators import Generator
from unseg_jax.runtime import parallel
from unseg_jax.segmentation import step as training
from unseg_jax.segmentation.unet import Unet
from unseg_jax.synthesis import candidates

COMPARED_STEPS, COMPARED_CHUNKS = 3, 4  # What both compute, before they are timed.

# A row of the table: what, the unit, JAX's number, PyTorch's, and the ratio of their times.
Row = tuple[str, str, float, float, float]


def measure_search(rounds: int, steps: int, generator: Generator, twin: nn.Module) -> list[Row]:
  """Times a search step with its random draws; prints the difference between the twins."""
  config = cases.faces_config().search
  state, variables, indices = cases.search_arguments(generator, config, restarts=1)
  step = parallel.pmap(cases.search_step(generator, config), donate_argnums=(0,))
  start = parallel.unreplicate(state).directions[0]
  torch_search = Search(twin, config, start, generator.image_size)
  worst = 0.0
  for number in range(COMPARED_STEPS):
    drawn = cases.draw(generator, config, number, jnp.arange(config.batch_size))
    latents, _, radii = (torch.tensor(np.asarray(x)) for x in drawn)
    expected = torch_search.step(latents, radii)
    state, parts = step(state, variables, indices)
    parts = parallel.unreplicate(parts)  # Each loss is [1, 1]: one restart, one direction.
    found = (parts["outside_circle"].item(), parts["sobel_shift"].item())
    worst = max(worst, *(abs(a - b) for a, b in zip(found, expected, strict=True)))
  found = parallel.unreplicate(state).directions[0]
  apart = np.abs(found - torch_search.direction.detach().numpy()).max()
  print(
    f"search: losses differ by {worst:.1e}, the direction by {apart:.1e} after "
    f"{COMPARED_STEPS} steps",
    flush=True,
  )

  def run_jax():
    nonlocal state
    for _ in range(steps):
      state, parts = step(state, variables, indices)
      jax.device_get(parts)

  def run_torch():
    for _ in range(steps):
      torch_search.step(*torch_search.draw())

  seconds = timing.in_turns(rounds, {"jax": run_jax, "torch": run_torch})
  ours, theirs = (1e3 * value / steps for value in seconds.values())
  return [(f"search step, batch {config.batch_size}", "ms", ours, theirs, theirs / ours)]


def measure_pairs(rounds: int, chunk: int, generator: Generator, twin: nn.Module) -> list[Row]:
  """Measures kept pairs per second, up to arrays on the host; prints the twins' agreement."""
  config, direction, key = cases.faces_config().generate, cases.faces_direction(), jax.random.key(2)
  config.chunk = chunk
  compute = parallel.pmap_local(candidates.make_candidates(generator, config))
  fixed = parallel.replicate((generator.variables, direction, key))
  numbers = itertools.count()

  def run_jax():
    first = next(numbers) * chunk
    made = parallel.unshard(compute(*fixed, parallel.shard(np.arange(first, first + chunk))))
    accepted = made["verdicts"]["all"]
    return accepted, made["image"][accepted], made["mask"][accepted]

  def run_torch(latents=None):
    latents = torch.randn(chunk, *generator.latent_shape) if latents is None else latents
    return torch_candidates.candidates(twin, config, direction, latents)

  verdicts, masks_apart = [], []
  for number in range(COMPARED_CHUNKS):
    drawn = jnp.arange(number * chunk, (number + 1) * chunk)
    latents, _ = generators.sample_at(generator, key, drawn)
    expected = run_torch(torch.tensor(np.asarray(latents)))
    accepted, _, masks = run_jax()
    verdicts += zip(accepted, (pair is not None for pair in expected), strict=True)
    both = zip(itertools.compress(expected, accepted), masks, strict=True)
    masks_apart += [(pair[1] != mask).mean() for pair, mask in both if pair]
  verdicts = np.array(verdicts)
  kept = verdicts.mean(axis=0)
  print(
    f"pairs: {(verdicts[:, 0] == verdicts[:, 1]).sum()} of {len(verdicts)} verdicts agree, the "
    f"masks' pixels differ by {np.mean(masks_apart):.1e}; JAX keeps {kept[0]:.1%}, PyTorch "
    f"{kept[1]:.1%}",
    flush=True,
  )
  seconds = timing.in_turns(rounds, {"jax": run_jax, "torch": run_torch})
  rates = (share * chunk / value for share, value in zip(kept, seconds.values(), strict=True))
  ratio = seconds["torch"] / seconds["jax"]
  return [(f"kept pairs, chunks of {chunk}", "pairs/s", *rates, ratio)]


def measure_training(rounds: int, batch_size: int, divisor: int) -> list[Row]:
  """Times training steps of the paper's U-Net at 64 x 64; prints the twins' difference."""
  config = default_config.get_config().train
  config.update({"image_size": 64, "batch_size": batch_size})
  config.features = published.divided(config.features, divisor)
  network = torch_unet.network(config.features)
  variables = torch_unet.flax_variables(network)
  pairs = cases.noise_pairs(config)
  expected = torch_unet.logits(network, pairs["image"])
  images = pairs["image"].astype(np.float32) / 127.5 - 1
  found = parallel.jit(Unet(tuple(config.features)).apply)(variables, images)
  print(f"U-Net: logits differ by {np.abs(found - expected).max():.1e}", end="")

  state = training.initial_state(config, jax.random.key(0)).replace(**variables)
  state = parallel.replicate(state)
  step = parallel.pmap(training.make_step(config, jax.random.key(1)), donate_argnums=(0,))
  batch = parallel.shard(pairs)

  def run_jax():
    nonlocal state
    state, loss = step(state, batch)
    return float(parallel.unreplicate(loss))

  def run_torch(memory_format):
    twin_step = torch_unet.training_step(
      copy.deepcopy(network), pairs, config, memory_format=memory_format
    )
    return lambda: twin_step().item()

  runs = {
    "jax": run_jax,
    "torch": run_torch(torch.contiguous_format),
    "channels_last": run_torch(torch.channels_last),
  }
  curves = np.array([[run() for run in runs.values()] for _ in range(2)])
  apart = np.abs(curves - curves[:, :1]).max(axis=1)
  print(f", training losses of steps 1 and 2 by {apart[0]:.1e} and {apart[1]:.1e}", flush=True)
  times = {name: 1e3 * value for name, value in timing.in_turns(rounds, runs).items()}
  name = f"U-Net training step, batch {batch_size}"
  return [
    (label, "ms", times["jax"], times[twin], times[twin] / times["jax"])
    for label, twin in ((name, "torch"), (f"{name}, channels_last", "channels_last"))
  ]


def main() -> None:
  """Runs all measurements and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--rounds", type=command_line.positive, default=5, help="Number of timings.")
  parser.add_argument(
    "--steps", type=command_line.positive, default=4, help="Search steps per timing."
  )
  parser.add_argument("--chunk", type=command_line.positive, default=64, help="Candidates at once.")
  parser.add_argument(
    "--batch", type=command_line.positive, default=16, help="Batch size of training."
  )
  command_line.add_divisor(parser)
  arguments = command_line.parse(parser)
  rounds = arguments.rounds
  if jax.default_backend() != "cpu":
    parser.error(f"JAX runs on {jax.default_backend()}; set JAX_PLATFORMS=cpu to compare CPUs")
  threads = len(os.sched_getaffinity(0))  # As many as XLA uses.
  torch.set_num_threads(threads)
  print(f"JAX {jax.__version__}, PyTorch {torch.__version__}, {threads} threads, {rounds} rounds")

  generator = generators.load(cases.faces_config().generator)
  twin = torch_dcgan.generator(generator.variables)
  rows = measure_search(rounds, arguments.steps, generator, twin)
  rows += measure_pairs(rounds, arguments.chunk, generator, twin)
  rows += measure_training(rounds, arguments.batch, arguments.divisor)
  print(f"\n| {'':44} | unit    | {'JAX':>8} | {'PyTorch':>8} | {'ratio':>6} |")
  print(f"| {'-' * 44} | ------- | -------: | -------: | -----: |")
  for name, unit, ours, theirs, ratio in rows:
    print(f"| {name:44} | {unit:7} | {ours:8.1f} | {theirs:8.1f} | {ratio:6.2f} |")


if __name__ == "__main__":
  main()
