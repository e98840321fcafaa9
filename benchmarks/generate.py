"""Times every published generator at its full size, with random weights.

python benchmarks/generate.py [--generators=biggan-deep-128,bigbigan-128] [--batch=4] [--rounds=3]
python benchmarks/generate.py --memory [--generators=biggan-deep-128,bigbigan-128]

Rates are for one device; timings of the types and of PyTorch alternate. `share` is the share of the
chip's bfloat16 matrix rate, if that is known, that the convolutions and matrix products reach in
bfloat16. If PyTorch and pytorch-pretrained-biggan are installed, BigGAN-deep is compared with them,
with the same weights. `--memory` instead prints the memory that a search step with the config's
batch and microbatch needs on one device, according to the compiler.
"""

import argparse
import importlib
import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from common import cases, command_line, experiments, published, timing, work
from twins import device
from unseg_jax.generators import DTYPES, Generator, sample_at, with_dtype
from unseg_jax.runtime import parallel


def measure(name: str, batch: int, rounds: int) -> None:
  """Prints a generator's row."""
  torch_device, deep = twin_modules(name)
  if deep:
    twin = deep.network(name, torch_device)
    generator = deep.converted(name, twin)
  else:
    generator = published.random_generator(*published.GENERATORS[name][:2])
  latents, labels = sample_at(generator, jax.random.key(0), jnp.arange(batch))
  programs, runs = {}, {}
  for dtype in DTYPES:
    programs[dtype], runs[dtype] = compiled(with_dtype(generator, dtype), latents, labels)
  note = ""
  if deep:
    runs["torch"] = torch_run(deep, twin, latents, labels, torch_device)
    apart = np.abs(np.asarray(runs["float32"]()) - runs["torch"]().transpose(0, 2, 3, 1)).mean()
    note = f"images differ from PyTorch's by {apart:.0e} on average"
  seconds = timing.in_turns(rounds, runs)
  rates = {name: f"{batch / value:.2f}" for name, value in seconds.items()}
  share = work.share_of_peak(programs["bfloat16"].flops / seconds["bfloat16"])
  print(
    f"| {name:16} | {generator.image_size:4} | {rates['float32']:>9} | {rates['bfloat16']:>9} "
    f"| {share:>7} | {rates.get('torch', '-'):>9} | {note} |",
    flush=True,
  )


def compiled(
  generator: Generator, latents: jax.Array, labels: jax.Array
) -> tuple[work.Program, Callable[[], jax.Array]]:
  """Returns the generator's program on one device, and a function that runs and awaits it."""
  inputs = jax.device_put((generator.variables, latents, labels))
  program = work.compile_and_count(jax.jit(generator.generate), inputs)
  return program, lambda: jax.block_until_ready(program.call(*inputs))


def twin_modules(name: str) -> tuple[str | None, ModuleType | None]:
  """Returns PyTorch's device and the module of a generator's twin, or None for both."""
  torch_device, _ = device.choose(wanted=name.startswith("biggan-deep"))
  if torch_device is None or importlib.util.find_spec("pytorch_pretrained_biggan") is None:
    return None, None
  return torch_device, importlib.import_module("twins.biggan_deep")


def torch_run(
  deep: ModuleType, twin: Any, latents: jax.Array, labels: jax.Array, torch_device: str
) -> Callable[[], np.ndarray]:
  """Returns a function that runs the twin on the same latents, up to images on the host."""
  import torch

  inputs = [torch.tensor(np.asarray(x)).to(torch_device) for x in (latents, labels)]
  return lambda: deep.images(twin, *inputs).cpu().numpy()


def print_memory(name: str) -> None:
  """Prints the memory of a search step with the batch and microbatch of the config."""
  architecture, config, config_file = published.GENERATORS[name]
  settings = experiments.load(config_file).search
  generator = published.random_generator(architecture, config)
  state = cases.search_state(generator, settings, restarts=1)
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype),
    (state, generator.variables, np.arange(settings.batch_size)),
  )
  one_device = jax.pmap(
    cases.search_step(generator, settings), axis_name=parallel.AXIS, devices=jax.devices()[:1]
  )
  memory = work.compile_and_count(one_device, shapes).memory / 2**30
  print(
    f"{name}: search step, batch {settings.batch_size}, microbatch {settings.microbatch or 'all'}: "
    f"{memory:.1f} GiB on {jax.devices()[0].device_kind}",
    flush=True,
  )


def main() -> None:
  """Runs the measurements and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument(
    "--generators",
    type=command_line.names(published.GENERATORS),
    default=list(published.GENERATORS),
    help="Generators, comma-separated.",
  )
  parser.add_argument("--batch", type=command_line.positive, default=4, help="Images at once.")
  parser.add_argument("--rounds", type=command_line.positive, default=3, help="Number of timings.")
  parser.add_argument("--memory", action="store_true", help="Measure the memory of the search.")
  arguments = command_line.parse(parser)
  if arguments.memory:
    for name in arguments.generators:
      print_memory(name)
    return
  print(f"{jax.devices()[0].device_kind}, batch {arguments.batch}, {arguments.rounds} rounds")
  print("images per second:")
  print("| generator        | size |   float32 |  bfloat16 |   share |   PyTorch | note |")
  print("| ---------------- | ---: | --------: | --------: | ------: | --------: | ---- |")
  for name in arguments.generators:
    measure(name, arguments.batch, arguments.rounds)


if __name__ == "__main__":
  main()
