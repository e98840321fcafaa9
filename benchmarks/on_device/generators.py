"""Measures candidates, the search step and pairs on the fly, at published sizes."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from common import cases
from on_device import programs, rates
from on_device.rows import Report
from unseg_jax.generators import Generator, with_dtype
from unseg_jax.runtime import parallel
from unseg_jax.segmentation import step
from unseg_jax.synthesis import on_the_fly

TIMES = (1, 2, 4)  # Multiples of the config's chunk or microbatch.
PAPER = programs.NAMES[0]  # The paper's main generator.


@dataclasses.dataclass(frozen=True)
class Case:
  """The subject of one row.

  Attributes:
    make: compiles the program.
    check: checks the results of a call; returns a note, or raises a FloatingPointError if they are
      wrong.
    candidates: number of candidates per call; 0: a step, whose time is reported.
  """

  make: Callable[[], programs.Prepared]
  check: Callable[[Any], str]
  candidates: int


def run(report: Report, smoke: bool) -> None:
  """Measures all programs with the sizes of the configs, and then with multiples of them."""
  made = report.attempt_together(
    {name: functools.partial(programs.random_generator, name, smoke) for name in programs.NAMES}
  )
  for times in TIMES[:2] if smoke else TIMES:
    names = [PAPER] if smoke and times > 1 else programs.NAMES
    known: dict[str, Case] = {}
    for name in names:
      if name in made:
        known |= candidates_case(name, made[name], times, smoke)
        known |= search_case(name, made[name], times, smoke)
    if times == 1 and PAPER in made:
      known |= on_the_fly_case(made[PAPER], smoke)
    run_all(report, known, times, smoke)


def run_all(report: Report, known: Mapping[str, Case], times: int, smoke: bool) -> None:
  """Compiles all programs in parallel, which takes most of the time; then measures each."""
  attempt = functools.partial(rates.if_it_fits, times == 1)
  compiled = report.attempt_together(
    {what: functools.partial(attempt, case.make) for what, case in known.items()}
  )
  for what in list(compiled):
    arguments = (report, what, compiled.pop(what), known[what], smoke)
    report.attempt(what, attempt, measure, *arguments)


def measure(
  report: Report, what: str, prepared: programs.Prepared, case: Case, smoke: bool
) -> None:
  """Writes the rate or time of a program, and its memory."""
  report.add(f"{what}: compiled memory", prepared.program.memory / rates.GIB, "GiB")
  call = prepared.calls()
  note = case.check(call())
  seconds, _ = rates.seconds_of(call, smoke)
  if case.candidates:
    report.add(what, case.candidates / seconds, "candidates/s", note)
  else:
    report.add(what, 1e3 * seconds, "ms", note)
  rates.add_peak(report, f"{what}: peak memory")


def candidates_case(name: str, generator: Generator, times: int, smoke: bool) -> dict[str, Case]:
  """Returns the case of candidates, with a multiple of the config's chunk on each device."""
  config = programs.generator_config(name, smoke).generate
  chunk = times * config.chunk

  def check(made):
    made = parallel.unshard(made)
    if not made["image"].std() > 0:
      raise FloatingPointError("all pixels of the images are the same")
    return f"{config.dtype}, {made['verdicts']['all'].mean():.0%} kept"

  make = functools.partial(programs.make_candidates, generator, config, chunk)
  case = Case(make, check, chunk * parallel.device_count())
  return {f"{name}, candidates, chunk {chunk}": case}


def search_case(name: str, generator: Generator, times: int, smoke: bool) -> dict[str, Case]:
  """Returns the case of a search step, with a multiple of the config's microbatch.

  It is empty if this microbatch exceeds a device's share of the batch.
  """
  config = programs.generator_config(name, smoke).search
  share = config.batch_size // parallel.device_count()
  microbatch = times * min(config.microbatch or share, share)
  if microbatch > share:
    return {}
  config.microbatch = microbatch

  def make():
    cast = with_dtype(generator, config.dtype)
    arguments = cases.search_arguments(cast, config, restarts=1)
    return programs.prepare(cases.search_step(cast, config), arguments, stepping=True)

  def check(rest):
    (losses,) = jax.device_get(rest)
    if not all(np.isfinite(value).all() for value in losses.values()):
      raise FloatingPointError("a loss is not finite")
    return f"{config.dtype}, batch {config.batch_size}"

  return {f"{name}, search step, microbatch {microbatch}": Case(make, check, 0)}


def on_the_fly_case(generator: Generator, smoke: bool) -> dict[str, Case]:
  """Returns the case of a training step that makes its own pairs and keeps every candidate."""
  config = programs.generator_config(PAPER, smoke)
  batch, chunk = config.train.batch_size, config.generate.chunk

  def make():
    cast = with_dtype(generator, config.generate.dtype)
    update = step.make_step(config.train, jax.random.key(6))
    make_batch = on_the_fly.make_batch(cast, config, jax.random.key(3))

    def step_of_both(carried, variables, directions):
      state, pool = carried
      pool, batch = make_batch(pool, variables, directions)
      state, loss = update(state, batch)
      return (state, pool), loss, batch["pairs"]

    state = step.initial_state(config.train, jax.random.key(5))
    carried = (state, on_the_fly.empty_pool(config, 0))
    arguments = (carried, cast.variables, programs.unit_direction(cast))
    return programs.prepare(step_of_both, parallel.replicate(arguments), stepping=True)

  def check(rest):
    loss, pairs = (float(parallel.unreplicate(value)) for value in rest)
    if not np.isfinite(loss) or pairs != batch:
      raise FloatingPointError(f"a loss of {loss}, {pairs:.0f} pairs for a batch of {batch}")
    return f"{config.train.dtype}, batch {batch}, chunk {chunk}, all kept"

  return {f"{PAPER}, step on the fly": Case(make, check, 0)}
