"""Compiles the programs of `tpu.py`, which runs this module in its own process.

The environment selects the accelerator before JAX is imported. The only argument is a `Request` as
JSON. Each program's result is printed as one line of JSON.
"""

import collections
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import ml_collections
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from common import cases, experiments, published, work
from paper_run.stages import unit_direction
from tpu_estimates import hlo
from unseg_jax import generators
from unseg_jax.runtime import parallel
from unseg_jax.segmentation import copy_paste
from unseg_jax.segmentation import step as training
from unseg_jax.synthesis import candidates, masks, on_the_fly

CLOCK = 1.5e9  # Cycles per second of a v5e.
LABELLED = 4  # Chunks of masks on which labelling iterations are counted.
EMBEDDED = "dcgan-faces"
# Replicated on all chips, or with the leading axis split over them.
WHOLE, SPLIT = PartitionSpec(), PartitionSpec(parallel.AXIS)


@dataclasses.dataclass(frozen=True)
class Request:
  """The programs to compile for one number of chips.

  Attributes:
    topology: name of the topology, such as `v5e:2x2`; it may have more chips.
    chips: number of chips that run the program.
    programs: stage and generator of each.
    dtype: type of all computations.
    batch, microbatch, chunk: override the configs; None: the configs' values.
    text: folder for the programs' HLO; None: not written.
  """

  topology: str
  chips: int
  programs: list[tuple[str, str]]
  dtype: str
  batch: int | None = None
  microbatch: int | None = None
  chunk: int | None = None
  text: str | None = None


@dataclasses.dataclass(frozen=True)
class Step:
  """A function of `parallel.pmap`, with arguments without the leading axis of devices.

  Attributes:
    function: a function that averages over `parallel.AXIS`.
    arguments: arrays, or their shapes and types.
    inputs: how each argument is spread over the chips.
    outputs: how the results are spread.
    donated: indices of donated arguments.
    note: a description of a call.
    turns: numbers of iterations of loops that the program does not contain, the outermost first.
  """

  function: Callable[..., Any]
  arguments: tuple[Any, ...]
  inputs: tuple[PartitionSpec, ...]
  outputs: PartitionSpec
  donated: tuple[int, ...]
  note: str
  turns: tuple[float, ...] = ()


def search_step(generator: generators.Generator, config: Any, request: Request) -> Step:
  """Returns a search step with its random draws."""
  settings = config.search
  generator = generators.with_dtype(generator, settings.dtype)
  share = settings.batch_size // request.chips
  pieces = share // settings.microbatch if 0 < settings.microbatch < share else 1
  return Step(
    cases.search_step(generator, settings),
    (
      cases.search_state(generator, settings, restarts=1),
      generator.variables,
      np.arange(settings.batch_size),
    ),
    (WHOLE, WHOLE, SPLIT),
    WHOLE,
    donated=(0,),
    note=f"batch {settings.batch_size}"
    + (f", {pieces} microbatches of {settings.microbatch} a chip" if pieces > 1 else ""),
    turns=(pieces,),
  )


def candidates_step(generator: generators.Generator, config: Any, request: Request) -> Step:
  """Returns the program that makes a chunk of candidates on each chip."""
  settings = config.generate
  generator = generators.with_dtype(generator, settings.dtype)
  indices = np.arange(settings.chunk * request.chips)
  return Step(
    candidates.make_candidates(generator, settings),
    (generator.variables, unit_direction(generator), jax.random.key(3), indices),
    (WHOLE, WHOLE, WHOLE, SPLIT),
    SPLIT,
    donated=(),
    note=f"chunk {settings.chunk}",
    turns=labelling_turns(settings, generator.image_size),
  )


def train_step(generator: generators.Generator, config: Any, request: Request) -> Step:
  """Returns a training step on given pairs."""
  settings = config.train
  state = jax.eval_shape(functools.partial(training.initial_state, settings), jax.random.key(5))
  return Step(
    training.make_step(settings, jax.random.key(6)),
    (state, cases.noise_pairs(settings)),
    (WHOLE, SPLIT),
    WHOLE,
    donated=(0,),
    note=f"batch {settings.batch_size}",
  )


def on_the_fly_step(generator: generators.Generator, config: Any, request: Request) -> Step:
  """Returns a training step that makes its pairs and keeps all candidates."""
  settings = config.generate
  generator = generators.with_dtype(generator, settings.dtype)
  state = jax.eval_shape(functools.partial(training.initial_state, config.train), jax.random.key(5))
  update = training.make_step(config.train, jax.random.key(6))
  make = on_the_fly.make_batch(generator, config, jax.random.key(3))
  pool = jax.eval_shape(lambda: on_the_fly.empty_pool(config, 0))
  # A step uses surplus pairs of the one before, so the average number of rounds is a fraction.
  rounds = config.train.batch_size / (settings.chunk * request.chips)

  def make_and_train(state, pool, variables, directions):
    pool, batch = make(pool, variables, directions)
    return *update(state, batch), pool

  return Step(
    make_and_train,
    (state, pool, generator.variables, unit_direction(generator)),
    (WHOLE,) * 4,
    WHOLE,
    donated=(0, 1),
    note=f"batch {config.train.batch_size}, {rounds:.3g} rounds of {settings.chunk} a chip kept",
    turns=(rounds, *labelling_turns(settings, generator.image_size)),
  )


STAGES = {
  "search": search_step,
  "candidates": candidates_step,
  "train": train_step,
  "on_the_fly": on_the_fly_step,
}


def labelling_turns(config: ml_collections.ConfigDict, size: int) -> tuple[float, ...]:
  """Counts the iterations of the labelling loops for realistic masks, the outermost loop first.

  The masks are enlarged masks of the shipped face generator, since weights of larger generators are
  not available, and random weights give masks of noise.
  """
  faces = generators.load(experiments.load("dcgan_faces.py").generator)
  latents, labels = generators.sample_at(
    faces, jax.random.key(8), np.arange(LABELLED * config.chunk)
  )
  generate = parallel.jit(faces.generate)
  images = generate(faces.variables, latents, labels)
  shifted = generate(faces.variables, latents + config.shift * cases.faces_direction(), labels)
  turns, depth = collections.defaultdict(list), 0

  def count(condition, body, value):
    nonlocal depth
    depth += 1
    number = 0
    while condition(value):
      value, number = body(value), number + 1
    turns[depth].append(number)
    depth -= 1
    return value

  def on_accelerators(*arguments, cpu, default):
    del cpu
    return default(*arguments)

  for pair in zip(np.split(images, LABELLED), np.split(shifted, LABELLED), strict=True):
    pair = [jax.image.resize(x, (len(x), size, size, 3), "bilinear") for x in pair]
    found = masks.difference_mask(*pair, config.rule)
    with (
      mock.patch.object(jax.lax, "platform_dependent", on_accelerators),
      mock.patch.object(jax.lax, "while_loop", count),
    ):
      masks.keep_large_components(found, config.components)
  return tuple(float(np.mean(turns[depth])) for depth in sorted(turns))


def experiment(name: str, request: Request) -> ml_collections.ConfigDict:
  """Returns the config of a generator with the changes of the request."""
  file = "dcgan_faces.py" if name == EMBEDDED else published.GENERATORS[name][2]
  config = experiments.load(file)
  for stage in (config.search, config.generate, config.train):
    stage.dtype = request.dtype
  config.train.batch_size = request.batch or config.train.batch_size
  config.search.batch_size = request.batch or config.search.batch_size
  if request.microbatch is not None:
    config.search.microbatch = request.microbatch
  config.generate.chunk = request.chunk or config.generate.chunk
  return config


def load(name: str) -> generators.Generator:
  """Returns the shipped generator, or a published one with random weights."""
  if name == EMBEDDED:
    return generators.load(experiments.load("dcgan_faces.py").generator)
  return published.random_generator(*published.GENERATORS[name][:2])


def _gathers(settings: ml_collections.ConfigDict) -> bool:
  """Whether training takes backgrounds from other pairs, which may be on other chips."""
  return settings.share > 0 and bool(set(copy_paste.FROM_OTHER_PAIRS) & set(settings.kinds))


def compile_step(step: Step, mesh: Mesh) -> tuple[Any, float]:
  """Compiles a step; also returns the floating-point operations of one chip's products."""
  mapped = jax.jit(
    jax.shard_map(
      step.function, mesh=mesh, in_specs=step.inputs, out_specs=step.outputs, check_vma=False
    ),
    donate_argnums=step.donated,
  )

  def shapes(tree, spec):
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding), tree
    )

  arguments = [shapes(tree, spec) for tree, spec in zip(step.arguments, step.inputs, strict=True)]
  # Only the outermost loop can contain products.
  flops = work.product_flops(jax.make_jaxpr(mapped)(*arguments), *step.turns[:1])
  return mapped.lower(*arguments).compile(), flops


def summary(executable: Any, flops: float, step: Step) -> dict[str, Any]:
  """Summarises the compiler's data on a program, for one chip, in seconds and bytes."""
  program = hlo.parse(executable.as_text())
  found = hlo.runs(program, step.turns)
  memory = executable.memory_analysis()
  return {
    "seconds": hlo.cycles(found) / CLOCK,
    "flops": flops,
    "memory": memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    - memory.alias_size_in_bytes
    + memory.temp_size_in_bytes
    + memory.generated_code_size_in_bytes,
    "bytes": executable.cost_analysis()["bytes accessed"],
    "traffic": hlo.traffic(program, found),
    "turns": step.turns,
    "kinds": {kind: cycles / CLOCK for kind, cycles in hlo.kinds(found).items()},
    "sources": {place: cycles / CLOCK for place, cycles in hlo.sources(found).items()},
    "without estimate": [
      {"kind": kind, "elements": elements, "times": times}
      for (kind, elements), times in hlo.without_estimate(program, found).items()
    ],
    "collectives": [
      {"operation": operation, "source": source, "times": times, "bytes": size}
      for operation, source, times, size in hlo.collectives(program, found)
    ],
  }


def compiled(request: Request) -> Iterator[dict[str, Any]]:
  """Compiles each program; the result of one that does not fit the chip has an `error`."""
  devices = topologies.get_topology_desc(platform="tpu", topology_name=request.topology).devices
  mesh = Mesh(np.array(devices[: request.chips]), (parallel.AXIS,))
  for stage, name in request.programs:
    config = experiment(name, request)
    step = STAGES[stage](load(name), config, request)
    trained = stage in ("train", "on_the_fly")
    result = {
      "stage": stage,
      "generator": name,
      "chips": request.chips,
      "dtype": request.dtype,
      "note": step.note,
      "chunk": config.generate.chunk,
      "gathers backgrounds": trained and _gathers(config.train.copy_paste),
    }
    try:
      executable, flops = compile_step(step, mesh)
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error):
        raise
      yield result | {"error": str(error).splitlines()[0]}
      continue
    if request.text:
      path = Path(request.text) / f"{stage}-{name}-{request.chips}.txt"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(executable.as_text())
    yield result | summary(executable, flops, step)


def main() -> None:
  """Compiles the programs of the request."""
  # The program on the fly depends on the number of devices: simulated CPU devices stand for chips.
  for result in compiled(Request(**json.loads(sys.argv[1]))):
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
  main()
