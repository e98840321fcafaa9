"""Compares the speed of StyleGAN3-T and -R with PyTorch on the same CPU, in one run.

python benchmarks/stylegan3.py [--kinds=t,r] [--size=256] [--batch=2] [--chunk=2] [--rounds=3]
  [--divisor=1]

Both have the same random weights and the widths of NVIDIA's networks at 256 x 256, divided by
`--divisor`. PyTorch computes as upstream does without its CUDA kernels. First the results are
compared; then the timings alternate. A search step has `--batch` images and a chunk has `--chunk`
candidates with the paper's filters. The ratio is PyTorch's time divided by JAX's.
"""

import argparse
import os
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import torch

from common import cases, command_line, experiments, published, timing
from twins import candidates as torch_candidates
from twins import stylegan3 as twins
from twins.search import Search
from unseg_jax import default_config, generators
from unseg_jax.generators import Generator
from unseg_jax.runtime import parallel
from unseg_jax.synthesis import candidates

KINDS = {"t": twins.T, "r": twins.R}


def settings(kind: str, divisor: int) -> dict[str, Any]:
  """Returns those settings of a published 256 x 256 network that its arrays do not determine."""
  base, most = KINDS[kind]["channel_base"] // 2, KINDS[kind]["channel_max"]
  return KINDS[kind] | {"channel_base": base // divisor, "channel_max": most // divisor}


def measure(
  kind: str, size: int, config: ml_collections.ConfigDict, divisor: int, rounds: int
) -> None:
  """Prints the difference between the twins, and the rows of a kind."""
  given = settings(kind, divisor)
  twin = twins.network(size, **given).requires_grad_(False)
  generator = twins.converted(twin, given)
  key = jax.random.key(0)
  latents, _ = generators.sample_at(generator, key, jnp.arange(config.generate.chunk))
  labels = jnp.zeros(len(latents), jnp.int32)
  found = parallel.jit(generator.generate)(generator.variables, latents, labels)
  apart = np.abs(np.asarray(found) - twins.images(twin, np.asarray(latents))).max()
  print(f"{kind.upper()}: images differ by {apart:.1e} at most", flush=True)
  for what, runs in (
    (f"search step, batch {config.search.batch_size}", search_runs(generator, twin, config.search)),
    (f"chunk of {config.generate.chunk} candidates", chunk_runs(generator, twin, config.generate)),
  ):
    seconds = timing.in_turns(rounds, runs)
    ours, theirs = seconds["jax"], seconds["torch"]
    name = f"StyleGAN3-{kind.upper()}, {what}"
    print(f"| {name:44} | {ours:7.3f} | {theirs:7.3f} | {theirs / ours:6.2f} |", flush=True)


def search_runs(
  generator: Generator, twin: twins.Network, config: ml_collections.ConfigDict
) -> dict[str, Any]:
  """Returns functions that run a search step in JAX and in PyTorch."""
  state, variables, indices = cases.search_arguments(generator, config, restarts=1)
  step = parallel.pmap(cases.search_step(generator, config), donate_argnums=(0,))
  start = parallel.unreplicate(state).directions[0]
  torch_search = Search(twin, config, start, generator.image_size)

  def run_jax():
    nonlocal state
    state, parts = step(state, variables, indices)
    jax.device_get(parts)

  return {"jax": run_jax, "torch": lambda: torch_search.step(*torch_search.draw())}


def chunk_runs(
  generator: Generator, twin: twins.Network, config: ml_collections.ConfigDict
) -> dict[str, Any]:
  """Returns functions that make a chunk of candidates in JAX and in PyTorch, up to the host."""
  random = np.random.default_rng(0)
  direction = random.normal(0, 0.1, (1, *generator.latent_shape)).astype(np.float32)
  compute = parallel.pmap_local(candidates.make_candidates(generator, config))
  fixed = parallel.replicate((generator.variables, direction, jax.random.key(2)))
  indices = parallel.shard(np.arange(config.chunk))
  latents = torch.randn(config.chunk, *generator.latent_shape)
  return {
    "jax": lambda: parallel.unshard(compute(*fixed, indices)),
    "torch": lambda: torch_candidates.candidates(twin, config, direction, latents),
  }


def main() -> None:
  """Prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  positive = command_line.positive
  parser.add_argument(
    "--kinds", type=command_line.names(KINDS), default=list(KINDS), help="Kinds to time."
  )
  parser.add_argument(
    "--size", type=positive, default=published.STYLE3_SMALL, help="Image side in pixels."
  )
  parser.add_argument("--batch", type=positive, default=2, help="Images per search step.")
  parser.add_argument("--chunk", type=positive, default=2, help="Candidates per chunk.")
  parser.add_argument("--rounds", type=positive, default=3, help="Timings per row.")
  command_line.add_divisor(parser)
  arguments = command_line.parse(parser)
  if jax.default_backend() != "cpu":
    parser.error(f"JAX runs on {jax.default_backend()}; set JAX_PLATFORMS=cpu to compare CPUs")
  threads = len(os.sched_getaffinity(0))  # As many as XLA uses.
  torch.set_num_threads(threads)
  config = default_config.with_types(experiments.load("stylegan3.py:t-ffhqu-256"))
  config.search.update({"batch_size": arguments.batch, "microbatch": 0})
  config.generate.update({"chunk": arguments.chunk, "shard_candidates": arguments.chunk})
  print(f"JAX {jax.__version__}, PyTorch {torch.__version__}, {threads} threads")
  print(f"| {'seconds':44} | {'JAX':>7} | PyTorch | {'ratio':>6} |")
  print(f"| {'-' * 44} | ------: | ------: | -----: |")
  for kind in arguments.kinds:
    measure(kind, arguments.size, config, arguments.divisor, arguments.rounds)


if __name__ == "__main__":
  main()
