"""The stage `generate` as it runs, and in how much of its time the devices had nothing to do."""

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


@dataclasses.dataclass(frozen=True)
class Made:
  """A data set that was made.

  Attributes:
    acceptance: how many candidates there were in all splits, and how many were kept.
    seconds: wall time of the split `train`.
    idle: the share of it, at least, in which none of the devices' work was in flight: a result's
      end is noted by a thread that shares the interpreter with the encoders.
  """

  acceptance: generate.Acceptance
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
  """Runs the stage with candidates that are compiled already.

  Args:
    compute: `candidates.make_candidates` of this generator and config, compiled for all devices.
    generator: the pretrained generator.
    config: `config.generate` of an experiment.
    direction: `[1, *latent_shape]`.
    key: the stage's.
    folder: receives the data set; empty.
  """
  in_flight = []
  with concurrent.futures.ThreadPoolExecutor(max_workers=1) as watcher:
    watched = _watch(compute, in_flight, watcher)
    with mock.patch.object(parallel, "pmap_local", lambda _: watched):
      acceptance = generate.generate(generator, config, direction, key, folder)
  # A split's keys are one object; the next split begins when this one is written.
  first = [call for call in in_flight if call[0] is in_flight[0][0]]
  begin, end = first[0][1], in_flight[len(first)][1]
  busy = [(start, ready.result()) for _, start, ready in first]
  return Made(acceptance, end - begin, idle_share(busy, begin, end))


def _watch(
  compute: Callable[..., Any], in_flight: list[tuple], watcher: concurrent.futures.Executor
) -> Callable[..., Any]:
  """Returns `compute` so that each call leaves its keys, its start, and a future of its end."""

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
  """The share of the time from `begin` to `end` that no interval (start, ready) covers."""
  idle, done = 0.0, begin
  for start, ready in sorted(busy):
    idle += max(start - done, 0.0)
    done = max(done, min(ready, end))
  return (idle + end - done) / (end - begin)
