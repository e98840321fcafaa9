"""Programs that several parts run, compiled for all devices as in the package."""

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
SMALL_WIDTHS = (4, 8)  # Channels of the smallest U-Net.


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A compiled program and its arguments.

  Attributes:
    program: the program, for all devices.
    arguments: its arguments, spread over the devices.
    stepping: whether the first argument is a state, which each call donates and replaces.
  """

  program: work.Program
  arguments: Sequence[Any]
  stepping: bool

  def calls(self) -> Callable[[], Any]:
    """Returns a function that calls the program; if stepping, it continues from the last state."""
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
  """Returns the paper's `config.train` with this type and batch size."""
  config = default_config.get_config().train
  config.update({"dtype": dtype, "batch_size": batch})
  if smoke:
    config.update({"image_size": 32, "widths": SMALL_WIDTHS})
  return config


def unet_step(config: ml_collections.ConfigDict, start: Any = None) -> Prepared:
  """Prepares the training step on a batch of noise on the devices.

  Args:
    config: `config.train` of an experiment.
    start: the U-Net's variables; None: random ones.
  """
  state = step.initial_state(config, jax.random.key(5), start)
  batch = jax.pmap(lambda x: x)(parallel.shard(cases.noise_pairs(config)))
  update = step.make_step(config, jax.random.key(6))
  return prepare(update, (parallel.replicate(state), batch), stepping=True)


def generator_config(name: str, smoke: bool) -> ml_collections.ConfigDict:
  """Returns the config of a published generator, with filters that accept everything."""
  config = default_config.with_types(experiments.load(published.GENERATORS[name][2]))
  config.generate.update({"area": (0.0, 1.0), "histogram_maxima": 1})
  if smoke:
    config.search.batch_size = 2 * parallel.device_count()
    config.search.microbatch = min(config.search.microbatch, 1)
    config.generate.chunk = 2
    config.train = train_config(config.train.dtype, 2 * parallel.device_count(), smoke)
  return config


def random_generator(name: str, smoke: bool) -> Generator:
  """Returns a published generator with random weights, and few channels for `smoke`."""
  architecture, config, _ = published.GENERATORS[name]
  return published.random_generator(architecture, small(config) if smoke else config)


def small(config: dict[str, Any]) -> dict[str, Any]:
  """Reduces a generator's config to one layer of each kind, with images of 8 pixels."""
  if "layers" in config:
    return config | {"layers": [["up", 8], ["attention", 8]], "bottom_features": 16}
  if "channels" in config:
    return config | {"channels": [8, 4], "mapping_widths": [512, 512]}
  return config | {"widths": [16, 16], "attention": [0]}


def unit_direction(generator: Generator) -> jax.Array:
  """Returns a random direction `[1, *latent_shape]` of unit length."""
  return directions.normalise(directions.initial(jax.random.key(4), 1, generator.latent_shape))


def make_candidates(
  generator: Generator, config: ml_collections.ConfigDict, chunk: int
) -> Prepared:
  """Prepares candidates with masks and the filters' verdicts, `chunk` on each device.

  Args:
    generator: the generator, with float32 weights.
    config: `config.generate` of an experiment, which sets the type.
    chunk: candidates per device.
  """
  generator = with_dtype(generator, config.dtype)
  fixed = (generator.variables, unit_direction(generator), jax.random.key(3))
  indices = np.arange(chunk * parallel.device_count())
  arguments = (*parallel.replicate(fixed), parallel.shard(indices))
  return prepare(candidates.make_candidates(generator, config), arguments, stepping=False)
