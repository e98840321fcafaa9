"""Compares the U-Net's step and BigBiGAN's generator with PyTorch on the same device."""

import jax
import jax.numpy as jnp
import numpy as np

from common import cases, published
from on_device import programs, rates
from on_device.rows import NotMeasured, Report, require
from twins import device
from unseg_jax import default_config
from unseg_jax.generators import DTYPES, sample_at, with_dtype
from unseg_jax.runtime import parallel

GENERATOR = programs.NAMES[0]
DIVISOR = 16  # Divides the channels in the smallest form.


def run(report: Report, smoke: bool) -> None:
  """Writes the times of JAX and PyTorch and their ratios; one row if PyTorch cannot run."""
  torch_device = report.attempt("PyTorch", choose, report)
  if torch_device is None:
    return
  for dtype in DTYPES[-1:] if smoke else DTYPES:  # Five levels are slow to compile.
    what = f"U-Net step, {dtype}"
    report.attempt(what, measure_unet, report, what, dtype, torch_device, smoke)
  for dtype in DTYPES:
    what = f"{GENERATOR}, {dtype}"
    report.attempt(what, measure_generator, report, what, dtype, torch_device, smoke)


def choose(report: Report) -> str:
  """Returns the device for PyTorch."""
  require("torch")
  torch_device, about = device.choose(wanted=True)
  if torch_device is None:
    raise NotMeasured(about)
  report.add("PyTorch", torch_device, "device", about)
  return torch_device


def measure_unet(report: Report, what: str, dtype: str, torch_device: str, smoke: bool) -> None:
  """Compares a training step on a device's share of the batch, from the same weights."""
  from twins import unet

  count = parallel.device_count()
  config = programs.train_config(dtype, 2 * count if smoke else 128, smoke)
  if smoke:  # The twin always has five levels.
    config.features = published.divided(default_config.get_config().train.features, DIVISOR)
  network = unet.network(config.features)
  prepared = programs.unet_step(config, unet.flax_variables(network))
  own = config.batch_size // count
  share = {name: array[:own] for name, array in cases.noise_pairs(config).items()}
  torch_call = unet.training_step(network, share, config, torch_device)
  call = prepared.calls()
  (loss,) = call()
  apart = abs(float(parallel.unreplicate(loss)) - float(torch_call()))
  found = rates.seconds_of(call, smoke, torch_call, device.wait)
  note = f"batch {own}; "
  note += f"first losses differ by {apart:.0e}" if count == 1 else "of a device"
  add_times(report, what, *found, note)


def measure_generator(
  report: Report, what: str, dtype: str, torch_device: str, smoke: bool
) -> None:
  """Compares a chunk of images from the same latents."""
  import torch

  from twins import biggan

  generator = programs.random_generator(GENERATOR, smoke)
  chunk = programs.generator_config(GENERATOR, smoke).generate.chunk
  twin = biggan.generator(generator.variables, torch_device, dtype)
  cast = with_dtype(generator, dtype)
  count = parallel.device_count()
  latents, labels = sample_at(generator, jax.random.key(2), jnp.arange(chunk * count))
  arguments = (parallel.replicate(cast.variables), *parallel.shard((latents, labels)))
  prepared = programs.prepare(cast.generate, arguments, stepping=False)
  inputs = torch.tensor(np.asarray(latents[:chunk])).to(torch_device)
  call = prepared.calls()
  expected = twin(inputs).permute(0, 2, 3, 1).cpu().numpy()
  apart = np.abs(parallel.unshard(call())[:chunk] - expected).mean()
  found = rates.seconds_of(call, smoke, lambda: twin(inputs), device.wait)
  add_times(report, what, *found, f"chunk {chunk}; images differ by {apart:.0e} on average")


def add_times(report: Report, what: str, ours: float, theirs: float, note: str) -> None:
  """Writes both times and the ratio."""
  report.add(f"{what}: JAX", 1e3 * ours, "ms", note)
  report.add(f"{what}: PyTorch", 1e3 * theirs, "ms", "channels_last")
  report.add(f"{what}: ratio", theirs / ours, "", "PyTorch's time by JAX's: above 1, JAX is faster")
