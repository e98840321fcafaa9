"""What would fail late fails first: settings against devices, and programs by their shapes.

Every program of the stages that will run is traced at its real shapes, without compiling it or
computing anything. This takes seconds; the same fault after a search and a million pairs, hours.
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
  """A program of a stage, with the shapes that it gets.

  Attributes:
    name: what it computes.
    function: runs along `parallel.AXIS`.
    arguments: by name, in order: trees of shapes and types, each one device's share.
    donated: how many of the arguments, from the first on, give their memory to the results.
  """

  name: str
  function: Callable[..., Any]
  arguments: Mapping[str, Any]
  donated: int = 0

  @property
  def signature(self) -> tuple[str, str]:
    """Equal for programs of one run that do the same."""
    return self.name, str(self.arguments)

  def trace(self) -> Any:
    """The shapes and types of a device's results."""
    return parallel.shapes(self.function, *self.arguments.values())

  def memory(self) -> dict[str, int]:
    """Bytes of each argument on a device."""
    return {name: size_of(tree) for name, tree in self.arguments.items()}

  def compiled_memory(self) -> int:
    """Bytes that the compiled program takes of a device, what it computes in between included."""
    return parallel.compiled_memory(
      self.function, *self.arguments.values(), donate_argnums=tuple(range(self.donated))
    )


def rehearse(this: Run, stages: Collection[str]) -> None:
  """Checks the settings of the stages that will run against the devices, and traces their programs.

  Args:
    this: the run.
    stages: the names of the stages that will run, which are not complete.

  Raises:
    ValueError, FileNotFoundError: a batch does not split over the devices, the generator is not
      what it declares to be, or the file of latents is missing or not the generator's.
    Exception: whatever the generator's own function raises while it is traced.
  """
  start = time.monotonic()
  for stage in stages:
    check_devices(this, stage)
  if this.generator and {"search", "generate", "train"} & set(stages):
    _check_generator(this.generator, this.config.generator)
  traced = set()
  for stage in stages:
    for program in programs(this, stage):
      # Stages share some, such as the segmenter that validates and evaluates.
      if program.signature not in traced:
        program.trace()
        traced.add(program.signature)
  log.info("settings and programs are checked: %.1f s", time.monotonic() - start)


def check_devices(this: Run, stage: str) -> None:
  """Raises a ValueError where a batch of the stage does not split over the devices."""
  config = this.config
  if stage == "search":
    search.check_batch(config.search)
  if stage in ("train", "adapt"):
    parallel.check_divisible("config.train.batch_size", config.train.batch_size)
  if stage == "generate" and config.generate.latents and this.generator:
    latents.read(config.generate.latents, this.generator.latent_shape)


def programs(this: Run, stage: str) -> Iterator[Program]:
  """The programs of a stage, as they are to run on the devices that there are.

  Args:
    this: the run; a stage whose programs need a generator has none if that is missing.
    stage: its name.
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
  """What pictures of a direction are drawn by; see `previews.prepare`."""
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
  step = train_step.make_step(settings, parallel.key(0))
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
  """What scores the U-Net, on square pictures of the training's size."""
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
  """Raises a ValueError unless the generator's functions return what it declares."""
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
    error.add_note(f"This came up while config.generator={name} was traced, before any work.")
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
  """The generator that computes in a type, and the shapes of its variables, which stay on disk."""

  def cast(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    is_cast = dtype != "float32" and jnp.issubdtype(leaf.dtype, jnp.floating)
    return jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype)) if is_cast else leaf

  without = dataclasses.replace(generator, variables={})
  return with_dtype(without, dtype), jax.tree.map(cast, _abstract(generator.variables))


def size_of(tree: Any) -> int:
  """Bytes of a tree of arrays, or of their shapes and types."""
  leaves = jax.tree.leaves(tree)
  return sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def _abstract(tree: Any) -> Any:
  """The shapes and types that arrays have on a device."""
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
