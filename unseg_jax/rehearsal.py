"""Early checks: settings against devices, and the shapes of all programs.

Every program of the stages to run is traced at its real shapes, without compiling or computing. It
takes seconds, whereas the same error during the run might appear only after hours.
"""

import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unseg_jax.direction import previews, search
from unseg_jax.direction import step as search_step
from unseg_jax.errors import InvalidValue
from unseg_jax.experiment import Run
from unseg_jax.generators import Generator, with_dtype
from unseg_jax.inference import segmenter, views
from unseg_jax.runtime import parallel
from unseg_jax.segmentation import step as train_step
from unseg_jax.synthesis import candidates, generate, latents, on_the_fly

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Program:
  """A program of a stage, with the shapes of its arguments.

  Attributes:
    name: a description.
    function: a function that runs along `parallel.AXIS`.
    arguments: one device's share of each argument, by name and in order: trees of shapes and types.
    donated: the number of leading arguments whose memory is reused for the results.
  """

  name: str
  function: Callable[..., Any]
  arguments: Mapping[str, Any]
  donated: int = 0

  @property
  def signature(self) -> tuple[str, str]:
    """A key that is equal for identical programs of a run."""
    return self.name, str(self.arguments)

  def trace(self) -> Any:
    """Returns the shapes and types of one device's results."""
    return parallel.shapes(self.function, *self.arguments.values())

  def memory(self) -> dict[str, int]:
    """Returns the bytes of each argument on a device."""
    return {name: size_of(tree) for name, tree in self.arguments.items()}

  def compiled_memory(self) -> int:
    """Returns the bytes that the compiled program needs on a device, with temporary buffers."""
    return parallel.compiled_memory(
      self.function, *self.arguments.values(), donate_argnums=tuple(range(self.donated))
    )


def rehearse(this: Run, stages: Collection[str]) -> None:
  """Checks settings against the devices, and traces all programs.

  Args:
    this: the run.
    stages: the names of the incomplete stages that will run.

  Raises:
    ValueError, FileNotFoundError: a batch does not split over the devices, the generator's
      functions contradict its declaration, or the file of latents is missing or does not fit the
      generator.
    Exception: any error of the generator's own function during tracing.
  """
  start = time.monotonic()
  for stage in stages:
    check_devices(this, stage)
  if this.generator and {"search", "generate", "train"} & set(stages):
    _check_generator(this.generator, this.config.generator)
  traced = set()
  for stage in stages:
    for program in programs(this, stage):
      # Stages share programs: validation and evaluation run the same segmenter.
      if program.signature not in traced:
        program.trace()
        traced.add(program.signature)
  log.info("settings and programs are checked: %.1f s", time.monotonic() - start)


def check_devices(this: Run, stage: str) -> None:
  """Raises a ValueError if a batch of the stage does not split over the devices."""
  config = this.config
  if stage == "search":
    search.check_batch(config.search)
  if stage in ("train", "adapt"):
    parallel.check_divisible("config.train.batch_size", config.train.batch_size)
  if stage == "generate" and config.generate.latents and this.generator:
    latents.read(config.generate.latents, this.generator.latent_shape)


def programs(this: Run, stage: str) -> Iterator[Program]:
  """Yields the programs of a stage, for this machine's devices.

  Args:
    this: the run. Programs that need a generator are omitted if it has none.
    stage: the stage's name.
  """
  if stage == "search" and this.generator:
    yield from _of_search(this, this.generator)
  if stage == "generate" and this.generator:
    yield _candidates(this, this.generator)
  if stage in ("train", "adapt"):
    yield from _of_training(this, stage)
  if stage in ("train", "adapt", "evaluate"):
    yield _segmenter(this)


def _of_search(this: Run, generator: Generator) -> Iterator[Program]:
  config = this.config.search
  computing, variables = _computing(generator, config.dtype)
  start = _floats(config.restarts, config.directions, *generator.latent_shape)
  state = jax.eval_shape(lambda start: search_step.initial_state(config, start), start)
  own = config.batch_size // parallel.device_count()
  update = search_step.make_drawing_step(computing, config, parallel.key(0))
  arguments = {"directions and optimizer": state, "generator": variables, "indices": _indices(own)}
  yield Program("search step", update, arguments, donated=1)
  yield _pictures(this, generator)
  if config.restarts > 1:
    yield _candidates(this, generator)


def _pictures(this: Run, generator: Generator) -> Program:
  """Returns the program that draws pictures of a direction; see `previews.prepare`."""
  settings, count = this.config.generate, this.config.search.directions

  def draw(variables, moved, labels):
    images = generator.generate(variables, moved, labels)
    return candidates.make_masks(images, jnp.stack([images] * count), settings)

  arguments = {
    "generator": _abstract(generator.variables),
    "latents": _floats(previews.ROWS, *generator.latent_shape),
    "labels": _indices(previews.ROWS),
  }
  return Program("pictures of the direction", draw, arguments)


def _candidates(this: Run, generator: Generator) -> Program:
  settings, shape = this.config.generate, generator.latent_shape
  computing, variables = _computing(generator, settings.dtype)
  arguments = {
    "generator": variables,
    "directions": _floats(this.config.search.directions, *shape),
    "key": _key(),
    "indices": _indices(settings.chunk),
  }
  if settings.latents:
    arguments["latents"] = _floats(settings.chunk, *shape)
  return Program("candidates", candidates.make_candidates(computing, settings), arguments)


def _of_training(this: Run, stage: str) -> Iterator[Program]:
  config, settings = this.config, this.config.train
  own, size = settings.batch_size // parallel.device_count(), settings.image_size
  batch = {
    "image": _bytes(own, size, size, 3),
    "mask": _bytes(own, size, size, 1),
    "position": _indices(own),
  }
  if stage == "train" and this.generator and generate.on_the_fly(config.generate):
    making = _batches_on_the_fly(this, this.generator)
    yield making
    _, batch = making.trace()
  state = jax.eval_shape(lambda key: train_step.initial_state(settings, key), _key())
  step = train_step.make_measured_step(settings, parallel.key(0))
  yield Program(
    "training step",
    lambda weights, optimizer, counters, batch: step(
      state.replace(**weights, opt_state=optimizer, **counters), batch
    ),
    {
      "weights": {"params": state.params, "batch_stats": state.batch_stats},
      "optimizer": state.opt_state,
      "counters": {"step": state.step, "candidates": state.candidates},
      "batch": batch,
    },
    donated=3,
  )


def _batches_on_the_fly(this: Run, generator: Generator) -> Program:
  config = this.config
  computing, variables = _computing(generator, config.generate.dtype)
  arguments = {
    "pool": jax.eval_shape(lambda: on_the_fly.empty_pool(config, 0)),
    "generator": variables,
    "directions": _floats(config.search.directions, *generator.latent_shape),
  }
  make = on_the_fly.make_batch(computing, config, parallel.key(0))
  return Program("batches on the fly", make, arguments, donated=1)


def _segmenter(this: Run) -> Program:
  """Returns the program that evaluates the U-Net, for square images of the training size."""
  settings, count = this.config.train, this.config.evaluate.batch_size
  state = jax.eval_shape(lambda key: train_step.initial_state(settings, key), _key())
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  side = settings.image_size
  padded = views.padded_size(np.broadcast_to(np.uint8(0), (side, side, 3)))
  arguments = {
    "weights": variables,
    "pictures": _bytes(count, *padded, 3),
    "sizes": jax.ShapeDtypeStruct((count, 2), jnp.int32),
  }
  return Program("segmenter", segmenter.network(tuple(settings.features)), arguments)


def _check_generator(generator: Generator, name: str) -> None:
  """Raises a ValueError unless the results of the generator's functions match its declaration."""
  count, side = 2, generator.image_size
  prior = _floats(count, *generator.latent_shape)
  images = _floats(count, side, side, 3)
  try:
    drawn = parallel.shapes(lambda key: generator.sample_latents(key, count), _key())
    _compare(name, "sample_latents", drawn, prior, "[n, *latent_shape]")
    made = parallel.shapes(
      generator.generate, _abstract(generator.variables), prior, _indices(count)
    )
    _compare(name, "generate", made, images, "[n, image_size, image_size, 3]")
  except Exception as error:
    error.add_note(f"Raised while tracing config.generator={name}, before any work.")
    raise


def _compare(name: str, function: str, made: Any, expected: Any, meaning: str) -> None:
  if not hasattr(made, "shape") or (made.shape, made.dtype) != (expected.shape, expected.dtype):
    raise InvalidValue(
      f"config.generator={name}: {function} of {expected.shape[0]} latents returned "
      f"{_described(made)}, expected {_described(expected)}, which is {meaning}"
    )


def _described(made: Any) -> str:
  if not hasattr(made, "shape"):
    return type(made).__name__
  return f"{made.dtype} {list(made.shape)}"


def _computing(generator: Generator, dtype: str) -> tuple[Generator, Any]:
  """Returns the generator with another dtype and without variables, and its variables' shapes."""

  def cast(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    is_cast = dtype != "float32" and jnp.issubdtype(leaf.dtype, jnp.floating)
    return jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype)) if is_cast else leaf

  without = dataclasses.replace(generator, variables={})
  return with_dtype(without, dtype), jax.tree.map(cast, _abstract(generator.variables))


def size_of(tree: Any) -> int:
  """Returns the bytes of a tree of arrays or of `jax.ShapeDtypeStruct`."""
  leaves = jax.tree.leaves(tree)
  return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def _abstract(tree: Any) -> Any:
  """Returns the shapes and types of arrays on a device."""
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(np.shape(x), jax.dtypes.canonicalize_dtype(jnp.result_type(x))),
    tree,
  )


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def _bytes(*shape: int) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, jnp.uint8)


def _indices(count: int) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct((count,), jnp.int32)


def _key() -> jax.ShapeDtypeStruct:
  return jax.eval_shape(lambda: jax.random.key(0))
