"""What several parts run: the same programs, compiled for all devices as the package does."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from common import cases, experiments, published, timing, work
from unseg_jax import default_config
from unseg_jax.direction import directions
from unseg_jax.generators import Generator, with_dtype
from unseg_jax.runtime import parallel
from unseg_jax.segmentation import step
from unseg_jax.synthesis import candidates

NAMES = ("bigbigan-128", "biggan-deep-256", "stylegan2-1024")
SMALL_WIDTHS = (4, 8)  # Of the U-Net in its smallest form.


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A compiled program with what it is called with.

  Attributes:
    program: for all devices.
    arguments: spread over them.
    stepping: whether the first argument is a state, given up for the next one by each call.
  """

  program: work.Program
  arguments: Sequence[Any]
  stepping: bool

  def calls(self) -> Callable[[], Any]:
    """Returns calls of the program, each of which goes on from the one before where it steps."""
    if not self.stepping:
      return lambda: self.program.call(*self.arguments)
    state, *fixed = self.arguments
    return timing.stepping(lambda state: self.program.call(state, *fixed), state)


def prepare(function: Callable[..., Any], arguments: Sequence[Any], stepping: bool) -> Prepared:
  """Compiles a function for all devices, as `parallel.pmap` does."""
  donated = (0,) if stepping else ()
  mapped = jax.pmap(function, axis_name=parallel.AXIS, donate_argnums=donated)
  return Prepared(work.compile_and_count(mapped, arguments), arguments, stepping)


def train_config(dtype: str, batch: int, smoke: bool) -> ml_collections.ConfigDict:
  """The paper's `config.train` in this type, with so many pairs a step."""
  config = default_config.get_config().train
  config.update({"dtype": dtype, "batch_size": batch})
  if smoke:
    config.update({"image_size": 32, "widths": SMALL_WIDTHS})
  return config


def unet_step(config: ml_collections.ConfigDict, start: Any = None) -> Prepared:
  """The training step on a batch of noise that lies on the devices.

  Args:
    config: `config.train` of an experiment.
    start: the U-Net's variables; None for fresh ones.
  """
  state = step.initial_state(config, jax.random.key(5), start)
  batch = jax.pmap(lambda x: x)(parallel.shard(cases.noise_pairs(config)))
  update = step.make_step(config, jax.random.key(6))
  return prepare(update, (parallel.replicate(state), batch), stepping=True)


def generator_config(name: str, smoke: bool) -> ml_collections.ConfigDict:
  """The experiment of a published generator, with filters that run and accept everything."""
  config = default_config.with_types(experiments.load(published.GENERATORS[name][2]))
  config.generate.update({"area": (0.0, 1.0), "histogram_maxima": 1})
  if smoke:
    config.search.batch_size = 2 * parallel.device_count()
    config.search.microbatch = min(config.search.microbatch, 1)
    config.generate.chunk = 2
    config.train = train_config(config.train.dtype, 2 * parallel.device_count(), smoke)
  return config


def random_generator(name: str, smoke: bool) -> Generator:
  """A published architecture with random weights; in its smallest form with few channels."""
  architecture, config, _ = published.GENERATORS[name]
  return published.random_generator(architecture, small(config) if smoke else config)


def small(config: dict[str, Any]) -> dict[str, Any]:
  """A generator's config with as few layers as show everything, and images of 8 pixels."""
  if "layers" in config:
    return config | {"layers": [["up", 8], ["attention", 8]], "bottom_features": 16}
  if "channels" in config:
    return config | {"channels": [8, 4], "mapping_widths": [512, 512]}
  return config | {"widths": [16, 16], "attention": [0]}


def unit_direction(generator: Generator) -> jax.Array:
  """A random direction `[1, *latent_shape]` of unit length."""
  return directions.normalise(directions.initial(jax.random.key(4), 1, generator.latent_shape))


def make_candidates(
  generator: Generator, config: ml_collections.ConfigDict, chunk: int
) -> Prepared:
  """Candidates with masks and the filters' verdicts, `chunk` on each device.

  Args:
    generator: with float32 weights.
    config: `config.generate` of an experiment; its type counts.
    chunk: candidates of a device at once.
  """
  generator = with_dtype(generator, config.dtype)
  fixed = (generator.variables, unit_direction(generator), jax.random.key(3))
  indices = np.arange(chunk * parallel.device_count())
  arguments = (*parallel.replicate(fixed), parallel.shard(indices))
  return prepare(candidates.make_candidates(generator, config), arguments, stepping=False)
