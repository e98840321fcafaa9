"""Times each stage of the method at the paper's size, and projects the time of the whole run.

python benchmarks/paper.py [--stages=search,generate,train,on_the_fly] [--dtype=float32,bfloat16]
  [--batch=128] [--chunk=64] [--rounds=3] [--acceptance=0.3] [--no-torch]
  [--segmenter=runs/dcgan_faces]

The generator is BigBiGAN's at 128 x 128 with random weights, the settings are those of
configs/bigbigan.py, the U-Net has its full width. `--batch` is the training's, and the search's
where it is below 32; `--batch=4 --chunk=4 --rounds=1` runs on two CPU cores. All devices of this
process take part.

Each row of the table is printed as soon as it is measured:

- rate: of all devices together, the median of the rounds; compilation is not counted.
- TFLOP/s: what the convolutions and matrix products of one unit take, counted in the traced
  program, times the rate. Nothing else is counted, and zeros of the padding are. For one device,
  for all, and for one as a share of the chip's dense bfloat16 rate, where that is known.
- XLA: the compiled program's own cost analysis divided by this count, a check of it. It also counts
  elementwise work and leaves padding out; on some backends it does not see library calls.
- PyTorch: the rate of the same network with the same weights on one device with one device's share
  of the batch, in turns with JAX; ratio: JAX's rate per device divided by it. "-" where PyTorch is
  not installed, or has no GPU while JAX has one.

The pairs pass the pipeline with filters that run as in the paper and accept everything: the area
within (0, 1), at least 1 maximum of the histogram. The device's idle share is that of the wall time
in which none of its work was in flight, at least: a result's end is noted by a thread that
shares the interpreter with the encoders.

The projection follows: 300 steps of search, 1,000,000 kept pairs, 18,000 training steps at batch
128, each without compilation, validation and checkpoints; measured smaller batches are scaled up.
The filters' acceptance is an assumption (`--acceptance`): making pairs takes the longer of the
device's time for all candidates and the pipeline's time for as many kept pairs. With bfloat16 among
the types, the share of pixels follows on which both types give the same masks: of the embedded face
generator, and of the U-Net of `--segmenter`, a run's workdir or a converted U-Net.
"""

import argparse
import concurrent.futures
import dataclasses
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import generate as published  # noqa: E402

from checkpoints_convert.unet import variables_from_state_dict  # noqa: E402
from configs import bigbigan, dcgan_faces  # noqa: E402
from unseg_jax import generators
from unseg_jax.direction import directions, search
from unseg_jax.generators import Generator, sample_at, with_dtype  # noqa: E402
from unseg_jax.runtime import parallel
from unseg_jax.segmentation import train
from unseg_jax.segmentation.segmenter import Segmenter  # noqa: E402
from unseg_jax.segmentation.unet import Unet  # noqa: E402
from unseg_jax.synthesis import (
  candidates,
  generate,
  shards,
)

RESTARTS = 8
# Calls in one timing fill about so many seconds, as long as they are not too many.
SECONDS, MOST_CALLS = 1.0, 100
# From disk for longer: what was read ahead must not count.
DISK_SECONDS = 4.0
# The data set takes about so many seconds, within these numbers of calls.
GENERATE_SECONDS, GENERATE_CALLS = 10.0, (4, 256)
CONTRAST = 0.5  # Standard deviation of the pictures' values, which lie within [-1, 1].
COMPARED, COMPARED_CHUNK = 256, 64  # Candidates of which float32 and bfloat16 masks are compared.

HEADINGS = ("measurement", "type", "rate", "unit", "TFLOP/s", "all", "share", "XLA", "PyTorch")
HEADINGS = (*HEADINGS, "ratio", "note")
COLUMNS = (38, 8, 10, 12, 8, 8, 6, 5, 9, 6, 0)


@dataclasses.dataclass(frozen=True)
class Settings:
  """What the command line asks for, in one type, and what all stages share.

  Attributes:
    config: the experiment's.
    generator: with float32 weights.
    dtype: what everything computes in.
    rounds: timings of each.
    folder: receives the data set.
    torch_device: where the twins run; None: no twins.
  """

  config: ml_collections.ConfigDict
  generator: Generator
  dtype: str
  rounds: int
  folder: Path
  torch_device: str | None

  @property
  def data_set(self) -> Path:
    """Where the pairs of this type lie."""
    return self.folder / self.dtype


# What the stages found: seconds of one `search` step, `candidate`, kept `pair`, training step from
# the disk (`disk_step`) and on the fly (`on_the_fly_step`); `candidate_flops` and `step_flops`.
Seconds = dict[str, float]


# Counting work.


def product_flops(jaxpr: Any) -> float:
  """Floating-point operations of the convolutions and matrix products of one device.

  Args:
    jaxpr: a traced function, `jax.make_jaxpr(f)(...)`. The bodies of while loops count once, for
      nobody knows how often they run.
  """
  jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
  total = 0.0
  for equation in jaxpr.eqns:
    parameters = equation.params
    out = equation.outvars[0].aval if equation.outvars else None
    if equation.primitive.name == "conv_general_dilated":
      kernel = equation.invars[1].aval.shape
      features = kernel[parameters["dimension_numbers"].rhs_spec[0]]
      total += 2.0 * np.prod(out.shape) * np.prod(kernel) / features
    elif equation.primitive.name == "dot_general":
      (contracted, _), _ = parameters["dimension_numbers"]
      lengths = [equation.invars[0].aval.shape[axis] for axis in contracted]
      total += 2.0 * np.prod(out.shape) * np.prod(lengths)
    else:
      inner = [product_flops(j) for value in parameters.values() for j in _jaxprs(value)]
      inner = [max(inner)] if equation.primitive.name == "cond" else inner
      total += sum(inner) * (parameters["length"] if equation.primitive.name == "scan" else 1)
  return total


def _jaxprs(value: Any) -> list[Any]:
  values = value if isinstance(value, (tuple, list)) else [value]
  return [x for x in values if hasattr(x, "eqns") or hasattr(getattr(x, "jaxpr", None), "eqns")]


@dataclasses.dataclass(frozen=True)
class Program:
  """A function compiled for all devices.

  Attributes:
    call: runs it; its arguments have the devices' axis.
    flops: of its products, on one device.
    by_compiler: the compiler's own count, divided by `flops`; 0 where it has none.
  """

  call: Callable[..., Any]
  flops: float
  by_compiler: float


def compile_for(
  function: Callable[..., Any], arguments: Sequence[Any], donate: tuple[int, ...] = ()
) -> Program:
  """Compiles a function as `parallel.pmap` does, and counts its work.

  Args:
    function: of one device's arguments.
    arguments: to be called with, with the devices' axis.
    donate: numbers of the arguments whose memory is given up.
  """
  mapped = jax.pmap(function, axis_name=parallel.AXIS, donate_argnums=donate)
  flops = product_flops(jax.make_jaxpr(mapped)(*arguments))
  executable = mapped.lower(*arguments).compile(compiler_options=parallel.compiler_options())
  return Program(executable, flops, compiler_flops(executable) / flops)


def compiler_flops(executable: Any) -> float:
  """The cost analysis's count for one device; 0 where the backend has none."""
  found = executable.cost_analysis() or {}
  found = found[0] if isinstance(found, list) else found
  return float(found.get("flops", 0.0))


# Timing.


def wait_for_torch() -> None:
  """Waits until the twin's device is done."""
  torch = sys.modules["torch"]
  if torch.cuda.is_available():
    torch.cuda.synchronize()


def repeated(
  call: Callable[[], Any], wait: Callable[[Any], Any], seconds: float = SECONDS
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


def seconds_per_call(
  settings: Settings,
  call: Callable[[], Any],
  torch_call: Callable[[], Any] | None = None,
  seconds: float = SECONDS,
) -> tuple[float, float | None]:
  """Median seconds of one call, and of the twin's call, which take turns."""
  run, number = repeated(call, jax.block_until_ready, seconds)
  if torch_call is None:
    return published.median_seconds(run, settings.rounds) / number, None
  import compare_pytorch

  torch_run, torch_number = repeated(torch_call, lambda _: wait_for_torch(), seconds)
  found = compare_pytorch.interleave(settings.rounds, {"jax": run, "torch": torch_run})
  return found["jax"] / number, found["torch"] / torch_number


def stepping(advance: Callable[[Any], tuple[Any, ...]], state: Any) -> Callable[[], Any]:
  """Returns calls that hand the state on; each returns all else that the step gives."""

  def call():
    nonlocal state
    state, *rest = advance(state)
    return rest

  return call


# The table.


def print_cells(cells: Sequence[str]) -> None:
  """Prints one row; the first column and the last are words."""
  aligned = [
    f"{cell:<{width}}" if i in (0, 1, 3, 10) else f"{cell:>{width}}"
    for i, (cell, width) in enumerate(zip(cells, COLUMNS, strict=True))
  ]
  print(f"| {' | '.join(aligned)} |", flush=True)


def print_header() -> None:
  """Prints the table's headings."""
  print_cells(HEADINGS)
  print_cells(["-" * max(width, 3) for width in COLUMNS])


def significant(value: float) -> str:
  """Three digits."""
  return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def print_row(
  name: str,
  dtype: str,
  rate: float,
  unit: str,
  flops: float | None,
  by_compiler: float = 0.0,
  torch_rate: float | None = None,
  note: str = "",
) -> None:
  """Prints a measurement.

  Args:
    name: what was measured.
    dtype: what it computed in.
    rate: units per second, of all devices together.
    unit: of the rate, such as `steps/s`.
    flops: of one unit, all devices together; None: not known.
    by_compiler: the compiler's count of them divided by ours; 0: it has none.
    torch_rate: the twin's, on one device.
    note: whatever else there is to say.
  """
  count = parallel.device_count()
  each = None if flops is None else rate * flops / count
  peak = published.peak_rate()
  print_cells(
    [
      name,
      dtype,
      significant(rate),
      unit,
      significant(each / 1e12) if each else "-",
      significant(count * each / 1e12) if each else "-",
      f"{each / peak:.1%}" if each and peak else "-",
      f"{by_compiler:.2f}" if by_compiler else "-",
      significant(torch_rate) if torch_rate else "-",
      f"{rate / count / torch_rate:.2f}" if torch_rate else "-",
      note,
    ]
  )


# The twins: the same networks in PyTorch, NCHW in the memory format channels_last.


def torch_device(wanted: bool) -> tuple[str | None, str]:
  """Where the twins run, None for nowhere, and what to tell about it."""
  if not wanted:
    return None, "PyTorch not wanted"
  if importlib.util.find_spec("torch") is None:
    return None, "PyTorch not installed"
  import torch

  if jax.default_backend() == "cpu":
    return "cpu", f"PyTorch {torch.__version__} on cpu"
  if jax.default_backend() != "gpu" or not torch.cuda.is_available():
    return None, f"PyTorch {torch.__version__} cannot use JAX's {jax.default_backend()}"
  # As XLA does by default: products of float32 in TF32, and the fastest of several convolutions.
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
  torch.backends.cudnn.benchmark = True
  return "cuda", f"PyTorch {torch.__version__} on cuda, channels_last"


def torch_generator(variables: dict[str, Any], device: str, dtype: str) -> Callable[[Any], Any]:
  """BigBiGAN's generator: a function of latents `[N, 120]` that gives images `[N, 3, 128, 128]`.

  Its operations are those of `unseg_jax.generators.biggan`.
  """
  import torch
  import torch.nn.functional as F

  def weight(array, name):
    array = torch.tensor(np.asarray(array, np.float32))
    if name == "kernel":
      array = array.permute(3, 2, 0, 1) if array.ndim == 4 else array.T
    tensor = array.to(device, getattr(torch, dtype)).contiguous()
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor

  def named(tree):
    return {k: named(v) if isinstance(v, dict) else weight(v, k) for k, v in tree.items()}

  weights = named(variables["params"])
  blocks = sum(name.startswith("block_") for name in weights)

  def dense(x, layer):
    return F.linear(x, layer["kernel"], layer.get("bias"))

  def pointwise(x, layer):
    return F.conv2d(x, layer["kernel"][..., None, None], layer.get("bias"))

  def convolution(x, layer):
    return F.conv2d(x, layer["kernel"], layer["bias"], padding=1)

  def affine(x, layer, condition):
    scale, bias = (dense(condition, layer[name])[..., None, None] for name in ("scale", "bias"))
    return x * scale + bias

  def double(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")

  def block(x, layer, condition):
    h = convolution(double(F.relu(affine(x, layer["norm_1"], condition))), layer["conv_1"])
    h = convolution(F.relu(affine(h, layer["norm_2"], condition)), layer["conv_2"])
    return h + double(pointwise(x, layer["shortcut"]))

  def attention(x, layer):
    query = pointwise(x, layer["query"]).flatten(2)
    key, value = (
      F.max_pool2d(pointwise(x, layer[name]), 2).flatten(2) for name in ("key", "value")
    )
    shares = torch.softmax(query.transpose(1, 2) @ key, dim=-1)
    found = (value @ shares.transpose(1, 2)).unflatten(2, x.shape[2:])
    return x + pointwise(found, layer["out"])

  def forward(latents):
    with torch.no_grad():
      first, *pieces = latents.to(getattr(torch, dtype)).chunk(blocks + 1, dim=1)
      # The projection's channels come last, as the next layers want them.
      x = dense(first, weights["project"]).unflatten(1, (4, 4, -1)).permute(0, 3, 1, 2)
      for i, piece in enumerate(pieces):
        x = block(x, weights[f"block_{i}"], piece)
        if f"attention_{i}" in weights:
          x = attention(x, weights[f"attention_{i}"])
      norm = weights["norm"]
      x = F.relu(x * norm["scale"][:, None, None] + norm["bias"][:, None, None])
      return torch.tanh(convolution(x, weights["out"])).float()

  return forward


def torch_training(
  settings: Settings, images: np.ndarray, masks: np.ndarray
) -> tuple[Callable[[], Any], dict[str, Any]]:
  """The U-Net's training step on one device, and its weights at the start, for Flax.

  Args:
    settings: for device and type.
    images: `[N, S, S, 3]` uint8.
    masks: `[N, S, S, 1]` uint8, 255 is foreground.
  """
  import compare_pytorch
  import torch
  import torch.nn.functional as F

  device, config = settings.torch_device, settings.config.train
  torch.manual_seed(0)
  network = compare_pytorch.TorchUnet()
  start = variables_from_state_dict({k: v.numpy().copy() for k, v in network.state_dict().items()})
  network.train().to(device, memory_format=torch.channels_last)
  optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
  pixels = torch.tensor(images.transpose(0, 3, 1, 2)).to(device)
  targets = torch.tensor(masks[..., 0] > 127).long().to(device)

  def step():
    inputs = pixels.float().contiguous(memory_format=torch.channels_last) / 127.5 - 1
    with torch.autocast(device, torch.bfloat16, enabled=config.dtype == "bfloat16"):
      logits = network(inputs)
    loss = F.cross_entropy(logits.float(), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()

  return step, start


# The stages. Each prints its rows, and adds what it found to that of the stages before.


def measure_search(settings: Settings, found: Seconds) -> None:
  """The search step, with its drawing of latents and radii, with 1 and with 8 restarts."""
  config, generator = settings.config.search, with_dtype(settings.generator, settings.dtype)
  variables = parallel.replicate(generator.variables)
  indices = parallel.shard(np.arange(config.batch_size))
  key = jax.random.key(1)
  update = search.make_step(generator, config)

  def draw_and_step(state, variables, indices):
    batch = search.draw(generator, config, jax.random.fold_in(key, state.step), indices)
    return update(state, variables, *batch)

  for restarts in (1, RESTARTS):
    start = directions.initial(jax.random.key(0), restarts, generator.latent_shape)
    state = parallel.replicate(search.initial_state(config, start[:, None]))
    program = compile_for(draw_and_step, (state, variables, indices), donate=(0,))

    def advance(state, program=program):
      return program.call(state, variables, indices)

    seconds, _ = seconds_per_call(settings, stepping(advance, state))
    note = f"batch {config.batch_size}"
    if restarts == 1:
      found["search"] = seconds
    else:
      note += f"; {seconds / found['search']:.2f} times as long as with 1"
    print_row(
      f"search step, {restarts} restart{'s' * (restarts > 1)}",
      settings.dtype,
      1 / seconds,
      "steps/s",
      program.flops * parallel.device_count(),
      program.by_compiler,
      note=note,
    )


def measure_forward(settings: Settings) -> None:
  """The generator alone, in one chunk on each device, beside its twin."""
  generator, chunk = with_dtype(settings.generator, settings.dtype), settings.config.generate.chunk
  devices = parallel.device_count()
  latents, labels = sample_at(generator, jax.random.key(2), jnp.arange(devices * chunk))
  arguments = parallel.replicate(generator.variables), *parallel.shard((latents, labels))
  program = compile_for(generator.generate, arguments)
  note, torch_call = f"chunk {chunk}", None
  if settings.torch_device:
    import torch

    twin = torch_generator(settings.generator.variables, settings.torch_device, settings.dtype)
    inputs = torch.tensor(np.asarray(latents[:chunk])).to(settings.torch_device)
    expected = twin(inputs).permute(0, 2, 3, 1).cpu().numpy()
    apart = np.abs(parallel.unshard(program.call(*arguments))[:chunk] - expected).mean()
    note += f"; images differ from PyTorch's by {apart:.0e} on average"

    def torch_call():
      return twin(inputs)

  seconds, torch_seconds = seconds_per_call(settings, lambda: program.call(*arguments), torch_call)
  print_row(
    "generator",
    settings.dtype,
    devices * chunk / seconds,
    "images/s",
    program.flops / chunk,
    program.by_compiler,
    chunk / torch_seconds if torch_seconds else None,
    note,
  )


def measure_generate(settings: Settings, found: Seconds) -> None:
  """Candidates on the devices alone, then pairs through the pipeline onto the disk."""
  measure_forward(settings)
  config, devices = settings.config.generate, parallel.device_count()
  per_call = config.chunk * devices
  generator = with_dtype(settings.generator, settings.dtype)
  direction = unit_direction(generator)
  function = candidates.make_candidates(generator, config)
  variables, replicated, keys = parallel.replicate(
    (generator.variables, direction, jax.random.key(3))
  )
  arguments = (variables, replicated, keys, parallel.shard(np.arange(per_call)))
  program = compile_for(function, arguments)
  seconds, _ = seconds_per_call(settings, lambda: program.call(*arguments))
  flops = program.flops / config.chunk  # Of one candidate.
  found.update(candidate=seconds / per_call, candidate_flops=flops)
  print_row(
    "candidates, devices alone",
    settings.dtype,
    per_call / seconds,
    "candidates/s",
    flops,
    program.by_compiler,
    note=f"chunk {config.chunk}",
  )

  calls = int(np.clip(np.ceil(GENERATE_SECONDS / seconds), *GENERATE_CALLS))
  wanted = per_call * max(calls, -(-settings.config.train.batch_size // per_call))
  config = config.copy_and_resolve_references()
  config.num_images.update({"train": wanted, "validation": 1, "test": 1})
  in_flight = []
  with concurrent.futures.ThreadPoolExecutor(max_workers=1) as watcher:
    watched = watch(program.call, in_flight, watcher)
    # The pipeline as it is, but compiled already, and with each call's times taken.
    with mock.patch.object(parallel, "pmap_local", lambda _: watched):
      acceptance = generate.generate(
        settings.generator, config, direction, jax.random.key(3), settings.data_set
      )
  # A split's keys are one object; the next split begins when this one is written.
  later = [start for keys, start, _ in in_flight if keys is not in_flight[0][0]]
  begin, end = in_flight[0][1], min(later)
  busy = [(start, ready.result()) for _, start, ready in in_flight if start < end]
  kept, wall = wanted / (end - begin), end - begin
  records = settings.data_set.glob(f"{shards.NAME}-train.*")
  size = sum(path.stat().st_size for path in records) / wanted
  print_row(
    "kept pairs, onto the disk",
    settings.dtype,
    kept,
    "pairs/s",
    flops,
    note=f"{wanted} pairs of {size / 1e3:.0f} kB, {acceptance.rates()['all']:.0%} kept; devices "
    f"idle {idle_share(busy, begin, end):.0%}; {kept * seconds / per_call:.0%} of their rate alone",
  )
  found["pair"] = wall / wanted


def natural_contrast(generator: Generator) -> Generator:
  """Scales the last convolution so that before the tanh values deviate by `CONTRAST`.

  With weights as they are drawn most pixels are black or white, which are too easy to encode.
  """

  def scaled(factor):
    out = {name: factor * array for name, array in generator.variables["params"]["out"].items()}
    params = generator.variables["params"] | {"out": out}
    return dataclasses.replace(generator, variables=generator.variables | {"params": params})

  latents, labels = sample_at(generator, jax.random.key(9), jnp.arange(4))
  small = 1e-4  # The tanh does nothing to values so small.
  images = parallel.jit(generator.generate)(scaled(small).variables, latents, labels)
  return scaled(np.float32(CONTRAST * small / np.std(images)))


def unit_direction(generator: Generator) -> np.ndarray:
  """A random direction `[1, *latent_shape]` of unit length."""
  start = directions.initial(jax.random.key(4), 1, generator.latent_shape)
  return np.asarray(directions.normalise(start))


def watch(
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


def random_pairs(settings: Settings) -> dict[str, np.ndarray]:
  """A batch of noise, as the training step takes it."""
  config = settings.config.train
  shape = (config.batch_size, config.image_size, config.image_size)
  random = np.random.default_rng(0)
  return {
    "image": random.integers(0, 256, (*shape, 3), np.uint8),
    "mask": 255 * random.integers(0, 2, (*shape, 1), np.uint8),
    "position": np.arange(config.batch_size),
  }


def training_program(settings: Settings, batch: Any) -> tuple[Program, Any]:
  """The training step, compiled, and its state at the start on all devices."""
  config = settings.config.train
  state = parallel.replicate(train.initial_state(config, jax.random.key(5)))
  step = train.make_step(config, jax.random.key(6))
  return compile_for(step, (state, batch), donate=(0,)), state


def measure_train(settings: Settings, found: Seconds) -> None:
  """The training step from pairs on the devices, beside its twin, then from the disk."""
  config, devices = settings.config.train, parallel.device_count()
  pairs = random_pairs(settings)
  batch = jax.pmap(lambda x: x)(parallel.shard(pairs))
  program, state = training_program(settings, batch)
  note, torch_call = f"batch {config.batch_size}", None
  if settings.torch_device:
    share = config.batch_size // devices
    torch_call, start = torch_training(settings, pairs["image"][:share], pairs["mask"][:share])
    twin_loss = float(torch_call())
    state = state.replace(**parallel.replicate(dict(start)))
    if devices == 1:
      state, loss = program.call(state, batch)
      apart = abs(float(parallel.unreplicate(loss)) - twin_loss)
      note += f"; first loss differs from PyTorch's by {apart:.0e}"

  def advance(state):
    return program.call(state, batch)

  seconds, torch_seconds = seconds_per_call(settings, stepping(advance, state), torch_call)
  flops = program.flops * devices
  print_row(
    "training step, pairs on the devices",
    settings.dtype,
    1 / seconds,
    "steps/s",
    flops,
    program.by_compiler,
    1 / torch_seconds if torch_seconds else None,
    note,
  )
  found["step_flops"] = flops
  if not (settings.data_set / "dataset_info.json").exists():
    print("training step from the disk: skipped, for the stage generate did not run", flush=True)
    return
  source = shards.read(settings.data_set, "train")
  begin = train.from_disk(config, source, jax.random.key(7))
  found["disk_step"] = measure_begin(settings, begin)
  print_row(
    "training step, pairs from the disk",
    settings.dtype,
    1 / found["disk_step"],
    "steps/s",
    flops,
    note=f"batch {config.batch_size}; {found['disk_step'] / seconds:.2f} times as long",
  )


def measure_begin(settings: Settings, begin: train.Begin) -> float:
  """Seconds of a training step with the pairs of `begin`."""
  state = train.initial_state(settings.config.train, jax.random.key(5))
  advance = begin(state, train.make_step(settings.config.train, jax.random.key(6)))
  call = stepping(advance, parallel.replicate(state))
  jax.block_until_ready(call())  # Compiles.
  return seconds_per_call(settings, call, seconds=DISK_SECONDS)[0]


def measure_on_the_fly(settings: Settings, found: Seconds) -> None:
  """The step that makes its own pairs, and what it saves against the disk."""
  config, generator = settings.config, settings.generator
  direction = unit_direction(generator)
  begin = train.from_generator(config, generator, direction, jax.random.key(3))
  seconds = measure_begin(settings, begin)
  found["on_the_fly_step"] = seconds
  batch_size = config.train.batch_size
  note = f"batch {batch_size}, all candidates kept"
  if {"pair", "disk_step"} <= found.keys():
    through_disk = batch_size * found["pair"] + found["disk_step"]
    note += f"; making pairs on disk, then training once on each: {through_disk / seconds:.2f} "
    note += "times as long"
  flops = None
  if {"step_flops", "candidate_flops"} <= found.keys():
    # From its parts: how often its loop runs is not in the program.
    flops = found["step_flops"] + batch_size * found["candidate_flops"]
  print_row(
    "training step, pairs on the fly",
    settings.dtype,
    1 / seconds,
    "steps/s",
    flops,
    note=note,
  )


STAGES = {
  "search": measure_search,
  "generate": measure_generate,
  "train": measure_train,
  "on_the_fly": measure_on_the_fly,
}


def run_stage(stage: str, settings: Settings, found: Seconds) -> None:
  """Runs a stage; one that needs more memory than there is says so, and the others go on."""
  try:
    STAGES[stage](settings, found)
  except RuntimeError as error:
    if not any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "out of memory")):
      raise
    print(
      f"{stage}, {settings.dtype}: the rest is skipped, for the device's memory is too small; "
      f"choose a smaller --batch or --chunk, or --no-torch ({str(error).splitlines()[0][:200]})",
      flush=True,
    )


# The projection.


def project(
  found: Seconds, config: ml_collections.ConfigDict, acceptance: float
) -> dict[str, float | None]:
  """Seconds of each part of the paper's run; None where its stage was not measured.

  Args:
    found: what the stages returned.
    config: the experiment's, as measured.
    acceptance: the share of candidates that the filters keep.
  """
  paper = bigbigan.get_config()
  pairs, steps = paper.generate.num_images.train, paper.train.steps
  larger = paper.train.batch_size / config.train.batch_size
  times = dict.fromkeys(("search", "generate", "train", "on the fly"))
  if "search" in found:
    scale = paper.search.batch_size / config.search.batch_size
    times["search"] = paper.search.steps * scale * found["search"]
  if "pair" in found:
    times["generate"] = pairs * max(found["candidate"] / acceptance, found["pair"])
  if "disk_step" in found:
    times["train"] = steps * larger * found["disk_step"]
  if {"on_the_fly_step", "candidate"} <= found.keys():
    rejected = config.train.batch_size * (1 / acceptance - 1)
    step = found["on_the_fly_step"] + rejected * found["candidate"]
    times["on the fly"] = steps * larger * step
  for name, parts in (
    ("together, with a data set on disk", ("search", "generate", "train")),
    ("together, on the fly", ("search", "on the fly")),
  ):
    known = all(times[part] is not None for part in parts)
    times[name] = sum(times[part] for part in parts) if known else None
  return times


def duration(seconds: float | None) -> str:
  """Seconds in the unit that suits them; "-" for None."""
  if seconds is None:
    return "-"
  for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
    if seconds >= 2 * length:
      return f"{seconds / length:.1f} {unit}"
  return f"{seconds:.1f} s"


def print_projection(
  found: dict[str, Seconds], config: ml_collections.ConfigDict, acceptance: float
) -> None:
  """Prints the time of the paper's run, one column for each type."""
  paper = bigbigan.get_config()
  pairs, steps = paper.generate.num_images.train, paper.train.steps
  samples = steps * paper.train.batch_size
  names = {
    "search": f"search: {paper.search.steps} steps of {paper.search.batch_size}",
    "generate": f"generate: {pairs:,} kept of {pairs / acceptance:,.0f} candidates",
    "train": f"train from the disk: {steps:,} steps of {paper.train.batch_size}",
    "on the fly": f"train on the fly: as many steps, {samples:,} kept pairs",
  }
  print(
    f"\nThe paper's run on this machine, if the filters keep {acceptance:.0%} of the candidates "
    "(an assumption):"
  )
  columns = {dtype: project(seconds, config, acceptance) for dtype, seconds in found.items()}
  print(f"| {'':54} | {' | '.join(f'{dtype:>10}' for dtype in columns)} |")
  print(f"| {'-' * 54} | {' | '.join('-' * 9 + ':' for _ in columns)} |")
  for part in next(iter(columns.values())):
    cells = [f"{duration(times[part]):>10}" for times in columns.values()]
    print(f"| {names.get(part, part):54} | {' | '.join(cells)} |")


# How safe bfloat16 is.


def compare_masks() -> np.ndarray:
  """Prints how far bfloat16 masks of the face generator agree; returns its images, uint8."""
  config = dcgan_faces.get_config()
  generator = generators.load(config.generator)
  found = np.load(ROOT / "tests" / "golden" / "search_dcgan_faces.npz")["d"][-1:]
  made = {}
  for dtype in generators.DTYPES:
    cast = with_dtype(generator, dtype)
    compute = parallel.jit(candidates.make_candidates(cast, config.generate))
    chunks = [
      jax.device_get(
        compute(cast.variables, found, jax.random.key(8), first + np.arange(COMPARED_CHUNK))
      )
      for first in range(0, COMPARED, COMPARED_CHUNK)
    ]
    made[dtype] = jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)
  exact, rough = made["float32"], made["bfloat16"]
  agree = (exact["mask"] == rough["mask"]).mean(axis=(1, 2))
  verdicts = {dtype: chunk["verdicts"]["all"] for dtype, chunk in made.items()}
  both = verdicts["float32"] & verdicts["bfloat16"]
  print(
    f"\nbfloat16 and float32, {COMPARED} candidates of {config.generator}: masks agree on "
    f"{agree.mean():.2%} of the pixels ({agree[both].mean():.2%} of the {both.sum()} pairs that "
    f"both keep; the worst candidate: {agree.min():.1%}), the filters on "
    f"{(verdicts['float32'] == verdicts['bfloat16']).mean():.1%} of the candidates",
    flush=True,
  )
  return exact["image"]


def compare_segmenter(path: str, images: np.ndarray) -> None:
  """Prints on how many pixels of `[N, S, S, 3]` uint8 a U-Net in bfloat16 agrees with float32."""
  variables = Segmenter.restore(path).variables
  levels = ["inc", *sorted(name for name in variables["params"] if name.startswith("down_"))]
  widths = tuple(variables["params"][level]["conv_1"]["kernel"].shape[-1] for level in levels)

  def foreground(dtype):
    network = parallel.jit(Unet(widths, jnp.dtype(dtype)).apply)
    logits = [
      np.asarray(network(variables, part.astype(np.float32) / 127.5 - 1))
      for part in np.split(images, COMPARED // COMPARED_CHUNK)
    ]
    return np.concatenate(logits)[..., 1] > np.concatenate(logits)[..., 0]

  agree = (foreground("float32") == foreground("bfloat16")).mean(axis=(1, 2))
  print(
    f"bfloat16 and float32, the U-Net of {path} on these pictures: the same class on "
    f"{agree.mean():.2%} of the pixels; the worst picture: {agree.min():.1%}",
    flush=True,
  )


# The command.


def names_of(text: str, known: Sequence[str]) -> list[str]:
  """Splits names at commas.

  Raises:
    argparse.ArgumentTypeError: a name is not known.
  """
  names = text.split(",")
  if unknown := [name for name in names if name not in known]:
    raise argparse.ArgumentTypeError(f"{unknown[0]!r}: expected some of {','.join(known)}")
  return [name for name in known if name in names]


def positive(text: str) -> int:
  """A whole number.

  Raises:
    argparse.ArgumentTypeError: it is below 1.
  """
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, at least 1")
  return int(text)


def share(text: str) -> float:
  """A share above 0.

  Raises:
    argparse.ArgumentTypeError: it is not within (0, 1].
  """
  try:
    value = float(text)
  except ValueError:
    value = 0.0
  if not 0 < value <= 1:
    raise argparse.ArgumentTypeError(f"{text!r}: expected a share above 0, and at most 1")
  return value


def experiment(batch: int, chunk: int, dtype: str) -> ml_collections.ConfigDict:
  """The paper's settings at this size, with filters that run and accept everything.

  Raises:
    ValueError: the batch does not split over the devices.
  """
  config = bigbigan.get_config()
  devices, least = parallel.device_count(), min(batch, config.search.batch_size)
  config.search.batch_size = max(least - least % devices, devices)
  config.train.batch_size = batch
  config.generate.update({"chunk": chunk, "area": (0.0, 1.0), "histogram_maxima": 1})
  # As many chunks as in the paper's shards, whatever the chunk.
  paper = bigbigan.get_config().generate
  config.generate.shard_candidates = paper.shard_candidates // paper.chunk * chunk
  for stage in (config.search, config.generate, config.train):
    stage.dtype = dtype
  parallel.check_divisible("--batch", batch)
  return config


def main() -> None:
  """Runs the measurements and prints the tables."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument(
    "--stages", type=lambda text: names_of(text, list(STAGES)), default=list(STAGES)
  )
  parser.add_argument(
    "--dtype",
    type=lambda text: names_of(text, generators.DTYPES),
    default=list(generators.DTYPES),
    help="what to compute in: float32, bfloat16 or both, comma-separated",
  )
  parser.add_argument("--batch", type=positive, default=128, help="of the training")
  parser.add_argument("--chunk", type=positive, default=64, help="candidates of a device at once")
  parser.add_argument("--rounds", type=positive, default=3, help="timings of each")
  parser.add_argument("--acceptance", type=share, default=0.3, help="share of candidates kept")
  parser.add_argument("--torch", action=argparse.BooleanOptionalAction, default=True)
  parser.add_argument("--segmenter", help="whose masks in bfloat16 and float32 to compare")
  arguments = parser.parse_args()
  try:
    configs = {
      dtype: experiment(arguments.batch, arguments.chunk, dtype) for dtype in arguments.dtype
    }
  except ValueError as error:
    parser.error(str(error))
  device, about_torch = torch_device(arguments.torch)
  print(
    f"{parallel.device_count()} x {jax.devices()[0].device_kind}, JAX {jax.__version__}, "
    f"{about_torch}; {arguments.rounds} rounds; BigBiGAN at 128 x 128 with random weights, filters "
    "that run and accept everything",
    flush=True,
  )
  print_header()
  architecture, architecture_config, _ = published.GENERATORS["bigbigan-128"]
  generator = natural_contrast(published.random_generator(architecture, architecture_config))
  found = {}
  for dtype, config in configs.items():
    found[dtype] = {}
    with tempfile.TemporaryDirectory() as folder:
      settings = Settings(config, generator, dtype, arguments.rounds, Path(folder), device)
      for stage in arguments.stages:
        run_stage(stage, settings, found[dtype])
  print_projection(found, configs[arguments.dtype[0]], arguments.acceptance)
  if "bfloat16" in arguments.dtype:
    images = compare_masks()
    if arguments.segmenter:
      compare_segmenter(arguments.segmenter, images)


if __name__ == "__main__":
  main()
