"""Timing: alternatives take turns, so that whatever else the machine does hits all of them."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

# Calls in one timing fill the seconds asked for, as long as they are not more than these.
MOST_CALLS = 100


def in_turns(rounds: int, runs: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
  """Median seconds of each run; they take turns, after one call each that is not counted."""
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
  """Median seconds of one call, and of the twin's call if there is one; they take turns.

  Args:
    rounds: timings of each.
    seconds: what one timing is to fill, with as many calls as it takes.
    call: of JAX.
    torch_call: of PyTorch.
    torch_wait: waits until PyTorch's device is done.
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
  """Returns a run of so many calls that they take about `seconds`, and their number.

  Calls follow each other as they do in the pipeline, without waiting for the device in between.
  """
  for _ in range(2):
    start = time.perf_counter()
    wait(call())
    one = time.perf_counter() - start
    if one > 2 * seconds:  # The first call may have been slow, but not so slow on a fast machine.
      break
  number = int(np.clip(np.ceil(seconds / one), 1, MOST_CALLS))

  def run():
    for _ in range(number):
      last = call()
    wait(last)

  return run, number


def stepping(advance: Callable[[Any], tuple[Any, ...]], state: Any) -> Callable[[], Any]:
  """Returns calls that hand the state on; each returns all else that the step gives."""

  def call():
    nonlocal state
    state, *rest = advance(state)
    return rest

  return call
