"""Times each stage of the method at the paper's size, and projects the time of a full run.

python benchmarks/paper.py [--stages=search,generate,train,on_the_fly] [--dtype=float32,bfloat16]
  [--batch=128] [--chunk=64] [--restarts=8] [--rounds=3] [--seconds=1] [--acceptance=0.3]
  [--no-torch] [--compared=256] [--segmenter=runs/dcgan_faces] [--divisor=1]

The generator is BigBiGAN's at 128 x 128 with random weights, the settings are those of
configs/bigbigan.py, the U-Net has its full width. `--batch` is the training's, and the search's
where it is below 32; `--batch=4 --chunk=4 --rounds=1` runs on two CPU cores. All devices of this
process take part. `--divisor=16` divides all channels of generator and U-Net by 16, for a first
try: the projection is then of such networks.

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
in which none of its work was in flight, at least.

The projection follows: 300 steps of search, 1,000,000 kept pairs, 18,000 training steps at batch
128, each without compilation, validation and checkpoints; measured smaller batches are scaled up.
The filters' acceptance is an assumption (`--acceptance`): making pairs takes the longer of the
device's time for all candidates and the pipeline's time for as many kept pairs. With bfloat16 among
the types, the share of pixels follows on which both types give the same masks: of `--compared`
candidates of the embedded face generator, and of the U-Net of `--segmenter`, a run's workdir or a
converted U-Net.
"""

import argparse
import dataclasses
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

import bfloat16
from common import command_line, experiments, published, rate_table
from paper_run import projection
from paper_run import stages as paper_stages
from twins import device
from unseg_jax.generators import DTYPES, Generator, sample_at
from unseg_jax.runtime import parallel

CONTRAST = 0.5  # Standard deviation of the pictures' values, which lie within [-1, 1].

STAGES = {
  "search": paper_stages.measure_search,
  "generate": paper_stages.measure_generate,
  "train": paper_stages.measure_train,
  "on_the_fly": paper_stages.measure_on_the_fly,
}


def run_stage(stage: str, settings: paper_stages.Settings, measured: projection.Measured) -> None:
  """Runs a stage; one that needs more memory than there is says so, and the others go on."""
  try:
    STAGES[stage](settings, measured)
  except RuntimeError as error:
    if not any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "out of memory")):
      raise
    print(
      f"{stage}, {settings.dtype}: the rest is skipped, for the device's memory is too small; "
      f"choose a smaller --batch or --chunk, or --no-torch ({str(error).splitlines()[0][:200]})",
      flush=True,
    )


def make_generator(divisor: int) -> Generator:
  """BigBiGAN's with random weights and pictures that are as hard to encode as natural ones."""
  architecture, config, _ = published.GENERATORS["bigbigan-128"]
  config = config | {"widths": published.divided(config["widths"], divisor)}
  return natural_contrast(published.random_generator(architecture, config))


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


def experiment(batch: int, chunk: int, dtype: str, divisor: int) -> ml_collections.ConfigDict:
  """The paper's settings at this size, with filters that run and accept everything.

  Raises:
    ValueError: the batch does not split over the devices.
  """
  config = experiments.load("bigbigan.py")
  devices, least = parallel.device_count(), min(batch, config.search.batch_size)
  config.search.batch_size = max(least - least % devices, devices)
  config.train.batch_size = batch
  config.train.features = published.divided(config.train.features, divisor)
  # As many chunks as in the paper's shards, whatever the chunk.
  chunks = config.generate.shard_candidates // config.generate.chunk
  config.generate.update({"chunk": chunk, "shard_candidates": chunks * chunk})
  config.generate.update({"area": (0.0, 1.0), "histogram_maxima": 1})
  for stage in (config.search, config.generate, config.train):
    stage.dtype = dtype
  parallel.check_divisible("--batch", batch)
  return config


def make_parser() -> argparse.ArgumentParser:
  """The flags."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument(
    "--stages",
    type=command_line.names(STAGES),
    default=list(STAGES),
    help="Stages to measure, comma-separated.",
  )
  parser.add_argument(
    "--dtype",
    type=command_line.names(DTYPES),
    default=list(DTYPES),
    help="Types to compute in, comma-separated.",
  )
  positive = command_line.positive
  parser.add_argument("--batch", type=positive, default=128, help="Batch size of training.")
  parser.add_argument("--chunk", type=positive, default=64, help="Candidates per device at once.")
  parser.add_argument("--restarts", type=positive, default=8, help="Restarts of the search.")
  parser.add_argument("--rounds", type=positive, default=3, help="Number of timings.")
  parser.add_argument(
    "--seconds",
    type=command_line.seconds,
    default=1.0,
    help="Minimum duration of a timing; 4 times as long from disk, 10 times for the data set.",
  )
  command_line.add_divisor(parser)
  parser.add_argument(
    "--acceptance", type=command_line.share, default=0.3, help="Fraction of candidates kept."
  )
  parser.add_argument(
    "--torch", action=argparse.BooleanOptionalAction, default=True, help="Also time PyTorch."
  )
  parser.add_argument(
    "--compared", type=positive, default=256, help="Candidates to compare in both types."
  )
  parser.add_argument("--segmenter", help="Segmenter to compare in both types.")
  return parser


def main() -> None:
  """Runs the measurements and prints the tables."""
  parser = make_parser()
  arguments = command_line.parse(parser)
  sizes = (arguments.batch, arguments.chunk)
  try:
    configs = {dtype: experiment(*sizes, dtype, arguments.divisor) for dtype in arguments.dtype}
  except ValueError as error:
    parser.error(str(error))
  torch_device, about_torch = device.choose(arguments.torch)
  print(
    f"{parallel.device_count()} x {jax.devices()[0].device_kind}, JAX {jax.__version__}, "
    f"{about_torch}; {arguments.rounds} rounds; BigBiGAN at 128 x 128 with random weights, filters "
    f"that run and accept everything; channels divided by {arguments.divisor}",
    flush=True,
  )
  rate_table.print_header()
  generator = make_generator(arguments.divisor)
  measured = {}
  for dtype, config in configs.items():
    measured[dtype] = projection.Measured()
    with tempfile.TemporaryDirectory() as folder:
      settings = paper_stages.Settings(
        config=config,
        generator=generator,
        restarts=arguments.restarts,
        dtype=dtype,
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        data_set=Path(folder) / "data_set",
        torch_device=torch_device,
      )
      for stage in arguments.stages:
        run_stage(stage, settings, measured[dtype])
  projection.print_table(measured, configs[arguments.dtype[0]], arguments.acceptance)
  if "bfloat16" in arguments.dtype:
    images = bfloat16.compare_masks(arguments.compared)
    if arguments.segmenter:
      bfloat16.compare_segmenter(arguments.segmenter, images)


if __name__ == "__main__":
  main()
