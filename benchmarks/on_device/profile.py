"""Profiles a U-Net step and a chunk of candidates, for TensorBoard or XProf."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from on_device import programs
from on_device.rows import Report
from unseg_jax.runtime import parallel

GENERATOR = programs.NAMES[0]
MOST_BYTES = 10_000_000  # The limit of both profiles together.


def run(report: Report, smoke: bool) -> None:
  """Writes both profiles to a folder beside the file of rows, with the same name."""
  folder = report.path.with_suffix("")
  for name, make in {"U-Net step": unet_step, "chunk of candidates": chunk}.items():
    report.attempt(name, write, report, name, folder, make, smoke)


def unet_step(smoke: bool) -> Callable[[], Any]:
  """Returns the training step in bfloat16."""
  batch = 2 * parallel.device_count() if smoke else 128
  return programs.unet_step(programs.train_config("bfloat16", batch, smoke)).calls()


def chunk(smoke: bool) -> Callable[[], Any]:
  """Returns a chunk of candidates of the paper's main generator."""
  config = programs.generator_config(GENERATOR, smoke).generate
  generator = programs.random_generator(GENERATOR, smoke)
  return programs.make_candidates(generator, config, config.chunk).calls()


def write(
  report: Report, name: str, folder: Path, make: Callable[[bool], Callable[[], Any]], smoke: bool
) -> None:
  """Profiles one call after two warm-up calls; removes a profile that is too large."""
  call = make(smoke)
  for _ in range(2):
    jax.block_until_ready(call())
  own = folder / name.replace(" ", "_").lower()
  options = jax.profiler.ProfileOptions()
  options.python_tracer_level = 0  # Python events are numerous and irrelevant to the device.
  with jax.profiler.trace(str(own), profiler_options=options):
    jax.block_until_ready(call())
  size = sum(path.stat().st_size for path in own.rglob("*") if path.is_file())
  together = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
  if together > MOST_BYTES:
    shutil.rmtree(own)
    report.add(name, size / 1e6, "MB", f"removed: the limit of both is {MOST_BYTES / 1e6:.0f} MB")
  else:
    report.add(name, size / 1e6, "MB", str(own.relative_to(report.path.parent)))
