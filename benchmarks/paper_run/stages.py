"""The stages that `paper.py` times. Each prints its rows and stores its measurements."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from common import cases, data_set_time, timing, work
from common.rate_table import print_row
from paper_run.projection import Measured
from twins import device
from unseg_jax.direction import directions
from unseg_jax.generators import Generator, sample_at, with_dtype
from unseg_jax.runtime import parallel
from unseg_jax.segmentation import batches
from unseg_jax.segmentation import step as training
from unseg_jax.synthesis import candidates, on_the_fly, shards

# Making the data set takes this many times as long as a timing, within these numbers of calls.
GENERATE_TIMES, GENERATE_CALLS = 10, (4, 256)
DISK_TIMES = 4  # Timings from disk are longer, so that batches read ahead have little effect.


@dataclasses.dataclass(frozen=True)
class Settings:
  """The settings of all stages for one type.

  Attributes:
    config: the experiment.
    generator: the generator, with float32 weights.
    restarts: restarts of a search, besides 1.
    dtype: the type of all computations.
    rounds: number of timings per row.
    seconds: length of one timing.
    data_set: folder for the pairs.
    torch_device: the twins' device; None: no twins.
  """

  config: ml_collections.ConfigDict
  generator: Generator
  restarts: int
  dtype: str
  rounds: int
  seconds: float
  data_set: Path
  torch_device: str | None

  def per_call(self, call, torch_call=None) -> tuple[float, float | None]:
    """Returns the median seconds of a call and of its twin."""
    return timing.per_call(self.rounds, self.seconds, call, torch_call, device.wait)


def measure_search(settings: Settings, measured: Measured) -> None:
  """Measures the search step with its random draws, with 1 restart and with several."""
  config, generator = settings.config.search, with_dtype(settings.generator, settings.dtype)
  for restarts in sorted({1, settings.restarts}):
    arguments = cases.search_arguments(generator, config, restarts)
    program = _compile(cases.search_step(generator, config), arguments, donate=(0,))
    state, *fixed = arguments

    def advance(state, program=program, fixed=fixed):
      return program.call(state, *fixed)

    seconds, _ = settings.per_call(timing.stepping(advance, state))
    note = f"batch {config.batch_size}"
    if restarts == 1:
      measured.search = seconds
    else:
      note += f"; {seconds / measured.search:.2f} times as long as with 1"
    print_row(
      f"search step, {restarts} restart{'s' * (restarts > 1)}",
      settings.dtype,
      1 / seconds,
      "steps/s",
      program.flops * parallel.device_count(),
      program.by_compiler,
      note=note,
    )


def measure_generate(settings: Settings, measured: Measured) -> None:
  """Measures the generator, candidates on the devices, and pairs up to the disk."""
  _measure_forward(settings)
  config, per_call = settings.config.generate, _candidates_per_call(settings)
  generator = with_dtype(settings.generator, settings.dtype)
  direction, key = unit_direction(generator), jax.random.key(3)
  fixed = parallel.replicate((generator.variables, direction, key))
  arguments = (*fixed, parallel.shard(np.arange(per_call)))
  program = _compile(candidates.make_candidates(generator, config), arguments)
  seconds, _ = settings.per_call(lambda: program.call(*arguments))
  flops = program.flops / config.chunk
  measured.candidate, measured.candidate_flops = seconds / per_call, flops
  print_row(
    "candidates, devices alone",
    settings.dtype,
    per_call / seconds,
    "candidates/s",
    flops,
    program.by_compiler,
    note=f"chunk {config.chunk}",
  )
  calls = int(np.clip(np.ceil(GENERATE_TIMES * settings.seconds / seconds), *GENERATE_CALLS))
  wanted = per_call * max(calls, -(-settings.config.train.batch_size // per_call))
  config = config.copy_and_resolve_references()
  config.num_images.update({"train": wanted, "validation": 1, "test": 1})
  made = data_set_time.make(
    program.call, settings.generator, config, direction, key, settings.data_set
  )
  measured.pair = made.seconds / wanted
  records = settings.data_set.glob(f"{shards.NAME}-train.*")
  size = sum(path.stat().st_size for path in records) / wanted
  print_row(
    "kept pairs, onto the disk",
    settings.dtype,
    1 / measured.pair,
    "pairs/s",
    flops,
    note=f"{wanted} pairs of {size / 1e3:.0f} kB, {made.acceptance.rates()['all']:.0%} kept; "
    f"devices idle {made.idle:.0%}; {measured.candidate / measured.pair:.0%} of their rate alone",
  )


def _measure_forward(settings: Settings) -> None:
  """Measures the generator, with one chunk on each device, and its twin."""
  generator, chunk = with_dtype(settings.generator, settings.dtype), settings.config.generate.chunk
  per_call = _candidates_per_call(settings)
  latents, labels = sample_at(generator, jax.random.key(2), jnp.arange(per_call))
  arguments = parallel.replicate(generator.variables), *parallel.shard((latents, labels))
  program = _compile(generator.generate, arguments)
  note, torch_call = f"chunk {chunk}", None
  if settings.torch_device:
    import torch

    from twins import biggan

    twin = biggan.generator(settings.generator.variables, settings.torch_device, settings.dtype)
    inputs = torch.tensor(np.asarray(latents[:chunk])).to(settings.torch_device)
    expected = twin(inputs).permute(0, 2, 3, 1).cpu().numpy()
    apart = np.abs(parallel.unshard(program.call(*arguments))[:chunk] - expected).mean()
    note += f"; images differ from PyTorch's by {apart:.0e} on average"

    def torch_call():
      return twin(inputs)

  seconds, torch_seconds = settings.per_call(lambda: program.call(*arguments), torch_call)
  print_row(
    "generator",
    settings.dtype,
    per_call / seconds,
    "images/s",
    program.flops / chunk,
    program.by_compiler,
    chunk / torch_seconds if torch_seconds else None,
    note,
  )


def measure_train(settings: Settings, measured: Measured) -> None:
  """Measures the training step with pairs on the devices, its twin, and the step from disk."""
  config, devices = settings.config.train, parallel.device_count()
  pairs, state = cases.noise_pairs(config), training.initial_state(config, jax.random.key(5))
  note, torch_call = f"batch {config.batch_size}", None
  if settings.torch_device:
    from twins import unet

    network = unet.network(config.features)
    state = state.replace(**unet.flax_variables(network))
    share = {name: array[: config.batch_size // devices] for name, array in pairs.items()}
    torch_call = unet.training_step(network, share, config, settings.torch_device)
    twin_loss = float(torch_call())
  batch = jax.pmap(lambda x: x)(parallel.shard(pairs))
  state = parallel.replicate(state)
  step = training.make_step(config, jax.random.key(6))
  program = _compile(step, (state, batch), donate=(0,))
  if torch_call and devices == 1:
    state, loss = program.call(state, batch)
    apart = abs(float(parallel.unreplicate(loss)) - twin_loss)
    note += f"; first loss differs from PyTorch's by {apart:.0e}"

  def advance(state):
    return program.call(state, batch)

  seconds, torch_seconds = settings.per_call(timing.stepping(advance, state), torch_call)
  measured.step_flops = program.flops * devices
  print_row(
    "training step, pairs on the devices",
    settings.dtype,
    1 / seconds,
    "steps/s",
    measured.step_flops,
    program.by_compiler,
    1 / torch_seconds if torch_seconds else None,
    note,
  )
  if not (settings.data_set / "dataset_info.json").exists():
    print("training step from the disk: skipped, as the stage generate did not run", flush=True)
    return
  source = shards.read(settings.data_set, "train")
  pairs = functools.partial(batches.from_disk, [source], [1.0], config, jax.random.key(7))
  measured.disk_step = _measure_steps(settings, pairs)
  print_row(
    "training step, pairs from the disk",
    settings.dtype,
    1 / measured.disk_step,
    "steps/s",
    measured.step_flops,
    note=f"batch {config.batch_size}; {measured.disk_step / seconds:.2f} times as long",
  )


def measure_on_the_fly(settings: Settings, measured: Measured) -> None:
  """Measures the step that makes its own pairs, and compares it with the disk."""
  config, generator = settings.config, settings.generator
  pairs = functools.partial(
    on_the_fly.batches, generator, unit_direction(generator), config, jax.random.key(3)
  )
  seconds = measured.on_the_fly_step = _measure_steps(settings, pairs)
  batch_size = config.train.batch_size
  note = f"batch {batch_size}, all candidates kept"
  if measured.pair and measured.disk_step:
    through_disk = batch_size * measured.pair + measured.disk_step
    note += f"; making pairs on disk, then training once on each: {through_disk / seconds:.2f} "
    note += "times as long"
  flops = None
  if measured.step_flops and measured.candidate_flops:
    # Summed from its parts, since the program does not contain the number of loop iterations.
    flops = measured.step_flops + batch_size * measured.candidate_flops
  print_row(
    "training step, pairs on the fly", settings.dtype, 1 / seconds, "steps/s", flops, note=note
  )


def _measure_steps(
  settings: Settings, pairs: Callable[[training.TrainState], Iterator[training.Batch]]
) -> float:
  """Returns the seconds of a training step with these pairs."""
  state = training.initial_state(settings.config.train, jax.random.key(5))
  upcoming = pairs(state)
  step = training.make_step(settings.config.train, jax.random.key(6))
  step = parallel.pmap(step, donate_argnums=(0,))
  call = timing.stepping(lambda state: step(state, next(upcoming)), parallel.replicate(state))
  jax.block_until_ready(call())  # Compiles.
  return timing.per_call(settings.rounds, DISK_TIMES * settings.seconds, call)[0]


def _compile(function, arguments, donate: tuple[int, ...] = ()) -> work.Program:
  """Compiles for all devices, as `parallel.pmap` does, and donates some arguments."""
  mapped = jax.pmap(function, axis_name=parallel.AXIS, donate_argnums=donate)
  return work.compile_and_count(mapped, arguments)


def _candidates_per_call(settings: Settings) -> int:
  return settings.config.generate.chunk * parallel.device_count()


def unit_direction(generator: Generator) -> np.ndarray:
  """Returns a random direction `[1, *latent_shape]` of unit length."""
  start = directions.initial(jax.random.key(4), 1, generator.latent_shape)
  return np.asarray(directions.normalise(start))
