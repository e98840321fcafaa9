"""Timing of alternatives, which alternate so that other load affects all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

# The most calls in one timing.
MOST_CALLS = 100


def in_turns(rounds: int, runs: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
  """Returns the median seconds of each run. The runs alternate, after one warm-up call each."""
  seconds = {name: [] for name in runs}
  for number in range(rounds + 1):
    for name, run in runs.items():
      start = time.perf_counter()
      run()
      if number:
        seconds[name].append(time.perf_counter() - start)
  return {name: statistics.median(values) for name, values in seconds.items()}


def per_call(
  rounds: int,
  seconds: float,
  call: Callable[[], Any],
  torch_call: Callable[[], Any] | None = None,
  torch_wait: Callable[[], None] | None = None,
) -> tuple[float, float | None]:
  """Returns the median seconds of one call, and of the twin's call if any; timings alternate.

  Args:
    rounds: number of timings of each.
    seconds: length of one timing, which repeats the call.
    call: the function in JAX.
    torch_call: the function in PyTorch; None: no twin.
    torch_wait: waits until PyTorch's device has finished.
  """
  run, number = _repeated(call, jax.block_until_ready, seconds)
  if torch_call is None:
    return in_turns(rounds, {"jax": run})["jax"] / number, None
  torch_run, torch_number = _repeated(torch_call, lambda _: torch_wait(), seconds)
  found = in_turns(rounds, {"jax": run, "torch": torch_run})
  return found["jax"] / number, found["torch"] / torch_number


def _repeated(
  call: Callable[[], Any], wait: Callable[[Any], Any], seconds: float
) -> tuple[Callable[[], None], int]:
  """Returns a function that repeats a call for about `seconds`, and the number of its calls.

  Calls are queued as in the pipeline, without waiting for the device in between.
  """
  for _ in range(2):
    start = time.perf_counter()
    wait(call())
    one = time.perf_counter() - start
    if one > 2 * seconds:  # Too slow to repeat, even if warming up took a part of it.
      break
  number = int(np.clip(np.ceil(seconds / one), 1, MOST_CALLS))

  def run():
    for _ in range(number):
      last = call()
    wait(last)

  return run, number


def stepping(advance: Callable[[Any], tuple[Any, ...]], state: Any) -> Callable[[], Any]:
  """Returns a function that advances the state and returns the step's other results."""

  def call():
    nonlocal state
    state, *rest = advance(state)
    return rest

  return call
