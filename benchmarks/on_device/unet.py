"""Measures the U-Net's training step at the paper's size."""

import functools

import jax

from on_device import programs, rates
from on_device.rows import Report
from unseg_jax.runtime import parallel

DTYPES = ("bfloat16", "float32")
# In the order of their memory, since the peak cannot be reset.
PAPERS_BATCH = 128
BATCHES, SMALL_BATCHES = (PAPERS_BATCH, 512), (2,)


def run(report: Report, smoke: bool) -> None:
  """Writes the time, rates and memory of each batch size and type."""
  ceilings = {
    dtype: report.attempt(f"ceiling, {dtype}", rates.product_rate, dtype, None, smoke)
    for dtype in DTYPES
  }
  for batch in SMALL_BATCHES if smoke else BATCHES:
    batch *= parallel.device_count() if smoke else 1
    attempt = functools.partial(rates.if_it_fits, batch <= PAPERS_BATCH)
    types = {f"{dtype}, batch {batch}": dtype for dtype in DTYPES}
    work = {
      name: functools.partial(
        attempt, programs.unet_step, programs.train_config(dtype, batch, smoke)
      )
      for name, dtype in types.items()
    }
    for name, prepared in report.attempt_together(work).items():
      ceiling = ceilings[types[name]]
      report.attempt(name, attempt, measure, report, name, prepared, batch, ceiling, smoke)


def measure(
  report: Report,
  name: str,
  prepared: programs.Prepared,
  batch: int,
  ceiling: float | None,
  smoke: bool,
) -> None:
  """Writes the rows of one type and batch.

  Args:
    report: the output.
    name: the beginning of the rows' names.
    prepared: the step.
    batch: pairs per step, over all devices.
    ceiling: FLOP/s of a matrix product in that type at the default precision, if measured.
    smoke: whether the network is small.
  """
  report.add(f"{name}: compiled memory", prepared.program.memory / rates.GIB, "GiB")
  call = prepared.calls()
  (loss,) = jax.block_until_ready(call())
  report.add(f"{name}: first loss", float(parallel.unreplicate(loss)), "", "on noise")
  seconds, _ = rates.seconds_of(call, smoke)
  rate = prepared.program.flops / seconds
  report.add(f"{name}: step", 1e3 * seconds, "ms")
  report.add(f"{name}: pictures", batch / seconds, "pictures/s")
  report.add(f"{name}: products", rate / 1e12, "TFLOP/s", "of a device")
  if ceiling:
    note = f"of a matrix product's {ceiling / 1e12:.3g} TFLOP/s in the same type"
    report.add(f"{name}: share of the ceiling", 100 * rate / ceiling, "%", note)
  rates.add_peak(report, f"{name}: peak memory")
