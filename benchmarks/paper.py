"""Times each stage of the method at the paper's size, and projects the time of the full run.

python benchmarks/paper.py [--stages=search,generate,train,on_the_fly] [--dtype=float32,bfloat16]
  [--batch=128] [--chunk=64] [--restarts=8] [--rounds=3] [--seconds=1] [--acceptance=0.3]
  [--no-torch] [--compared=256] [--segmenter=runs/dcgan_faces] [--divisor=1]

The generator is BigBiGAN at 128 x 128 with random weights. Settings come from configs/bigbigan.py,
and the U-Net has its full width. `--batch` sets the batch size of the training, and that of the
search if it is below 32. `--batch=4 --chunk=4 --rounds=1` runs on two CPU cores. All devices of
this process are used. For a quick try, `--divisor=16` divides all channels of generator and U-Net
by 16; the projection is then for such networks.

Each row of the table is printed as soon as it is measured:

- rate: the rate of all devices together, without compilation; the median of the rounds.
- TFLOP/s: the operations of the convolutions and matrix products of one unit, counted in the traced
  program, times the rate. It includes zeros of the padding and no other operations. It is given for
  one device, for all devices, and as a share of the chip's dense bfloat16 rate, if that is known.
- XLA: the compiler's cost analysis divided by this count, as a check. The compiler also counts
  elementwise work and leaves padding out; on some backends it does not count library calls.
- PyTorch: the rate of the same network with the same weights on one device, with one device's share
  of the batch; timings alternate with JAX's. ratio: JAX's rate per device divided by PyTorch's; "-"
  if PyTorch is not installed, or has no GPU while JAX has one.

The filters run as in the paper, but accept everything: the area is within (0, 1), and the histogram
has at least 1 maximum. The device's idle share is a lower bound: the share of wall time in which
none of its work was in flight.

The projection covers 300 search steps, 1,000,000 kept pairs and 18,000 training steps at batch 128,
without compilation, validation and checkpoints. Times of smaller batches are scaled up. The share
of candidates that the filters keep is an assumption (`--acceptance`). Making pairs takes the
device's time for all candidates or the pipeline's time for the kept pairs, whichever is longer. If
the types include bfloat16, the script also prints the share of pixels on which masks of both types
agree: for `--compared` candidates of the shipped face generator, and for the U-Net of
`--segmenter`, a run's workdir or a converted U-Net.
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

CONTRAST = 0.5  # Standard deviation of the images' values, which are within [-1, 1].

STAGES = {
  "search": paper_stages.measure_search,
  "generate": paper_stages.measure_generate,
  "train": paper_stages.measure_train,
  "on_the_fly": paper_stages.measure_on_the_fly,
}


def run_stage(stage: str, settings: paper_stages.Settings, measured: projection.Measured) -> None:
  """Runs a stage. If it runs out of memory, prints that and returns, so that others can run."""
  try:
    STAGES[stage](settings, measured)
  except RuntimeError as error:
    if not any(words in str(error) for words in ("RESOURCE_EXHAUSTED", "out of memory")):
      raise
    print(
      f"{stage}, {settings.dtype}: out of memory, the rest of the stage is skipped; use a smaller "
      f"--batch or --chunk, or --no-torch ({str(error).splitlines()[0][:200]})",
      flush=True,
    )


def make_generator(divisor: int) -> Generator:
  """Returns a BigBiGAN with random weights whose images are as hard to encode as natural ones."""
  architecture, config, _ = published.GENERATORS["bigbigan-128"]
  config = config | {"widths": published.divided(config["widths"], divisor)}
  return natural_contrast(published.random_generator(architecture, config))


def natural_contrast(generator: Generator) -> Generator:
  """Scales the last convolution so that values before the tanh have deviation `CONTRAST`.

  Otherwise random weights make most pixels black or white, which are too easy to encode.
  """

  def scaled(factor):
    out = {name: factor * array for name, array in generator.variables["params"]["out"].items()}
    params = generator.variables["params"] | {"out": out}
    return dataclasses.replace(generator, variables=generator.variables | {"params": params})

  latents, labels = sample_at(generator, jax.random.key(9), jnp.arange(4))
  small = 1e-4  # The tanh is linear for values this small.
  images = parallel.jit(generator.generate)(scaled(small).variables, latents, labels)
  return scaled(np.float32(CONTRAST * small / np.std(images)))


def experiment(batch: int, chunk: int, dtype: str, divisor: int) -> ml_collections.ConfigDict:
  """Returns the paper's settings at this size, with filters that accept everything.

  Raises:
    ValueError: the batch does not split over the devices.
  """
  config = experiments.load("bigbigan.py")
  devices, least = parallel.device_count(), min(batch, config.search.batch_size)
  config.search.batch_size = max(least - least % devices, devices)
  config.train.batch_size = batch
  config.train.features = published.divided(config.train.features, divisor)
  # Shards have the same number of chunks for every chunk size.
  chunks = config.generate.shard_candidates // config.generate.chunk
  config.generate.update({"chunk": chunk, "shard_candidates": chunks * chunk})
  config.generate.update({"area": (0.0, 1.0), "histogram_maxima": 1})
  for stage in (config.search, config.generate, config.train):
    stage.dtype = dtype
  parallel.check_divisible("--batch", batch)
  return config


def make_parser() -> argparse.ArgumentParser:
  """Defines the flags."""
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
