"""Runs the stage `generate` and measures the devices' idle time."""

import concurrent.futures
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import ml_collections
import numpy as np

from unseg_jax.generators import Generator
from unseg_jax.runtime import parallel
from unseg_jax.synthesis import generate
from unseg_jax.synthesis.acceptance import Acceptance


@dataclasses.dataclass(frozen=True)
class Made:
  """The measurements of a data set.

  Attributes:
    acceptance: the numbers of candidates and of kept ones, over all splits.
    seconds: wall time of the split `train`.
    idle: a lower bound of the share of this time in which the devices had no work. It is a bound
      because the thread that notes a result's end shares the interpreter with the encoders.
  """

  acceptance: Acceptance
  seconds: float
  idle: float


def make(
  compute: Callable[..., Any],
  generator: Generator,
  config: ml_collections.ConfigDict,
  direction: np.ndarray,
  key: jax.Array,
  folder: Path,
) -> Made:
  """Runs the stage with a compiled program for candidates.

  Args:
    compute: `candidates.make_candidates` of this generator and config, compiled for all devices.
    generator: the pretrained generator.
    config: `config.generate` of an experiment.
    direction: `[1, *latent_shape]`.
    key: the stage's key.
    folder: an empty folder for the data set.
  """
  in_flight = []
  with concurrent.futures.ThreadPoolExecutor(max_workers=1) as watcher:
    watched = _watch(compute, in_flight, watcher)
    with mock.patch.object(parallel, "pmap_local", lambda _: watched):
      acceptance = generate.generate(generator, config, direction, key, folder)
  # All calls of a split share one keys object. The next split begins after this one is written.
  first = [call for call in in_flight if call[0] is in_flight[0][0]]
  begin, end = first[0][1], in_flight[len(first)][1]
  busy = [(start, ready.result()) for _, start, ready in first]
  return Made(acceptance, end - begin, idle_share(busy, begin, end))


def _watch(
  compute: Callable[..., Any], in_flight: list[tuple], watcher: concurrent.futures.Executor
) -> Callable[..., Any]:
  """Wraps `compute` so that each call records its keys, its start and a future of its end."""

  def ready(result):
    jax.block_until_ready(result)
    return time.perf_counter()

  def call(variables, found, keys, indices):
    start = time.perf_counter()
    result = compute(variables, found, keys, indices)
    in_flight.append((keys, start, watcher.submit(ready, result)))
    return result

  return call


def idle_share(busy: Sequence[tuple[float, float]], begin: float, end: float) -> float:
  """Returns the share of the time from `begin` to `end` that no interval (start, ready) covers."""
  idle, done = 0.0, begin
  for start, ready in sorted(busy):
    idle += max(start - done, 0.0)
    done = max(done, min(ready, end))
  return (idle + end - done) / (end - begin)
