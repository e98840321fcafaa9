"""Devices and processes: the only module that spreads work over them.

A run has one or more processes, each with its own devices. Work that all processes compute together
(search, training) runs through `pmap` over every device of every process. Work that each process
does alone (its shards of a data set) runs through `pmap_local`.

Transfers between host and devices are explicit: `replicate`, `spread`, `on_every_device`, `ahead`
and `jax.device_put` copy to the devices; `unreplicate`, `unshard` and `jax.device_get` copy to the
host.
"""

import collections
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from flax import jax_utils
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from unseg_jax.array_types import Array, Float, Int, Key, Shaped
from unseg_jax.errors import InvalidValue
from unseg_jax.runtime import failure
from unseg_jax.storage import cache

AXIS = "devices"
Result = TypeVar("Result")
Tree = TypeVar("Tree")

# XLA's CPU compiler uses YNNPACK for convolutions and matrix products where it can. Measured on two
# cores with jaxlib 0.10, YNNPACK's weight gradients of 3 x 3 convolutions take up to six times as
# long as Eigen's (590 ms and 95 ms for [16, 64, 64, 128 -> 64]). Only its reductions are faster.
CPU_OPTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}

# JAX considers a process dead after this time without a heartbeat, and ends the others. JAX's own
# threads send the heartbeats, even while Python is busy.
HEARTBEAT_SECONDS = 10


def start(
  coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
  """Joins the other processes of the run, if any. Call it before anything uses JAX.

  Missing arguments are read from the environment: `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES`
  and `JAX_PROCESS_ID`, or from what JAX detects on a TPU pod, under SLURM and under Open MPI. If
  none of these is set, the run consists of this process.

  Args:
    coordinator: address of process 0, as `host:port`.
    processes: number of processes.
    process: index of this process, from 0.

  Raises:
    ValueError: only some of the three values are known, or they contradict each other; or see
      `check_devices`.
  """
  coordinator = coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
  processes = _number(processes, "JAX_NUM_PROCESSES")
  process = _number(process, "JAX_PROCESS_ID")
  given = (coordinator, processes, process)
  if any(x is not None for x in given) and None in given:
    raise InvalidValue(
      f"coordinator={coordinator}, processes={processes}, process={process}: expected all three, "
      "as --coordinator=HOST:PORT --processes=N --process=I, or none"
    )
  _join(*given)
  failure.watch()
  check_devices()


def _join(coordinator: str | None, processes: int | None, process: int | None) -> None:
  # This package handles termination signals itself; see `preemption.py`.
  jax.config.update("jax_enable_preemption_service", False)
  try:
    jax.distributed.initialize(
      coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
    )
  except ValueError as error:
    # Otherwise the environment names no other processes: the run consists of this one.
    if coordinator is not None or "coordinator_address" not in str(error):
      raise


def check_devices() -> None:
  """Starts the devices that `JAX_PLATFORMS` names. Does nothing if the variable is unset.

  Raises:
    ValueError: JAX cannot start them; the message lists those that it can.
  """
  asked = os.environ.get("JAX_PLATFORMS")
  if not asked:
    return
  try:
    jax.devices()
  except (AssertionError, RuntimeError) as error:
    reason = str(error).partition("\n")[0].partition(" (set JAX_PLATFORMS")[0].rstrip(".")
    jax.config.update("jax_platforms", None)
    found = sorted({device.platform for device in jax.devices()})
    raise InvalidValue(
      f"JAX_PLATFORMS={asked}: {reason or 'no such device'}; JAX finds {', '.join(found)} here: "
      f"set JAX_PLATFORMS={found[0]}, or unset it"
    ) from error


def _number(value: int | None, variable: str) -> int | None:
  text = os.environ.get(variable)
  if value is not None or text is None:
    return value
  if not text.isdecimal():
    raise InvalidValue(f"{variable}={text}: expected a number, such as 0 or 1")
  return int(text)


def keep_compiled() -> None:
  """Caches compiled programs on disk, unless JAX has a compilation cache already.

  Also trims the cache folder to its size limit.
  """
  cache.trim()
  if jax.config.values["jax_compilation_cache_dir"] is None:
    jax.config.update("jax_compilation_cache_dir", str(cache.cache_folder() / "compiled"))


def process_count() -> int:
  """Number of processes in this run."""
  # JAX's function starts the devices, which a run of one process may not need.
  return jax.process_count() if jax.distributed.is_initialized() else 1


def process_index() -> int:
  """Index of this process, from 0."""
  return jax.process_index() if jax.distributed.is_initialized() else 0


def is_primary() -> bool:
  """Whether this is process 0, which logs and writes shared files."""
  return process_index() == 0


def own_indices(count: int) -> range:
  """This process's share of `count` indices: every `process_count()`-th index."""
  return range(process_index(), count, process_count())


def gather_rows(rows: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "m k"]:
  """Concatenates the float64 rows of all processes, bit for bit.

  Args:
    rows: this process's rows. Their number may differ between processes; their length may not.
  """
  if process_count() == 1:
    return rows
  lengths = gather([len(rows)])[:, 0]
  padded = np.zeros((lengths.max(), rows.shape[1]))
  padded[: len(rows)] = rows
  # Sent as integers: JAX would round float64.
  gathered = np.asarray(multihost_utils.process_allgather(padded.view(np.int32)))
  parts = zip(gathered, lengths, strict=True)
  return np.concatenate([part.view(np.float64)[:length] for part, length in parts])


def gather(values: Sequence[int]) -> Int[np.ndarray, "processes values"]:
  """Gathers integers from all processes, one row each; waits for every process."""
  row = np.asarray(values, np.int32)
  if process_count() == 1:
    return row[None]
  return np.asarray(multihost_utils.process_allgather(row))


def device_count() -> int:
  """Number of devices of all processes, over which `pmap` spreads work."""
  return jax.device_count()


def local_device_count() -> int:
  """Number of devices of this process, over which `pmap_local` spreads work."""
  return jax.local_device_count()


def on_accelerator() -> bool:
  """Whether JAX computes on accelerators rather than on the host's CPU."""
  return jax.default_backend() != "cpu"


@functools.cache
def compiler_options() -> dict[str, str]:
  """Compiler options for this backend; empty where this version of XLA does not know them."""
  if on_accelerator():
    return {}
  try:
    jax.jit(lambda: 0, compiler_options=CPU_OPTIONS)()
  except jax.errors.JaxRuntimeError:
    return {}
  return CPU_OPTIONS


def jit(function: Callable[..., Result]) -> Callable[..., Result]:
  """`jax.jit` on one device, compiled with `compiler_options`."""

  @functools.cache
  def compiled() -> Callable[..., Result]:
    # The options depend on the backend, and importing a module must not start it.
    return jax.jit(function, compiler_options=compiler_options())

  return _with_32_bits(lambda *args: compiled()(*args))


def pmap(
  function: Callable[..., Result], donate_argnums: tuple[int, ...] = ()
) -> Callable[..., Result]:
  """`jax.pmap` along `AXIS` over all devices of all processes.

  Every argument has a leading axis whose length is the number of this process's devices. The
  function is compiled once for each combination of shapes.
  """
  mapped = jax.pmap(function, axis_name=AXIS, donate_argnums=donate_argnums)
  # A program compiled ahead of its call cannot take arguments from several processes.
  return _with_32_bits(_with_options(mapped) if process_count() == 1 else mapped)


def pmap_local(function: Callable[..., Result]) -> Callable[..., Result]:
  """`jax.pmap` over the devices of this process, independent of other processes."""
  mapped = jax.pmap(function, axis_name=AXIS, devices=jax.local_devices())
  return _with_32_bits(_with_options(mapped))


def shapes(function: Callable[..., Any], *arguments: Any) -> Any:
  """Traces a function along `AXIS` over all devices, as `pmap` does, without compiling it.

  Args:
    function: a function for `pmap`.
    *arguments: trees of `jax.ShapeDtypeStruct`: one device's share, without the leading axis.

  Returns:
    The shapes and types of one device's results.
  """

  def of_one(*shares: Any) -> Any:
    results = function(*jax.tree.map(lambda x: x[0], shares))
    return jax.tree.map(lambda x: jax.numpy.asarray(x)[None], results)

  mesh, spec = AbstractMesh((device_count(),), (AXIS,)), PartitionSpec(AXIS)
  mapped = jax.shard_map(of_one, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
  traced = _with_32_bits(functools.partial(jax.eval_shape, mapped))(*_of_all(arguments))
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), traced)


def compiled_memory(
  function: Callable[..., Any], *arguments: Any, donate_argnums: tuple[int, ...] = ()
) -> int:
  """Compiles a function as `pmap` does; returns the memory that it needs on each device, in bytes.

  It includes arguments, results and temporary buffers, according to XLA.

  Args:
    function: a function for `pmap`.
    *arguments: see `shapes`.
    donate_argnums: as for `pmap`.
  """
  mapped = jax.pmap(function, axis_name=AXIS, donate_argnums=donate_argnums)
  with jax.enable_x64(False):
    lowered = mapped.lower(*_of_all(arguments))
    analysis = lowered.compile(compiler_options=compiler_options()).memory_analysis()
  return (
    analysis.argument_size_in_bytes
    + analysis.output_size_in_bytes
    - analysis.alias_size_in_bytes
    + analysis.temp_size_in_bytes
  )


def _of_all(shares: Any) -> Any:
  """Adds the leading axis of `pmap`'s arguments to shapes."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct((device_count(), *x.shape), x.dtype), shares)


def _with_32_bits(function: Callable[..., Result]) -> Callable[..., Result]:
  """Computes in 32 bits even if 64 bits are enabled, including constants of libraries."""

  def call(*args: Any) -> Result:
    with jax.enable_x64(False):
      return function(*args)

  return call


def _with_options(mapped: Any) -> Callable[..., Any]:
  """Compiles a `pmap` with `compiler_options`, for which `jax.pmap` has no argument."""
  executables: dict[Any, Callable[..., Any]] = {}

  def call(*args: Any) -> Any:
    leaves, structure = jax.tree.flatten(args)
    signature = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
    if signature not in executables:
      executables[signature] = mapped.lower(*args).compile(compiler_options=compiler_options())
    return executables[signature](*args)

  return call


def replicate(tree: Tree) -> Tree:
  """Copies every array to each device of this process, along a new leading axis."""
  return jax_utils.replicate(tree)


def unreplicate(tree: Any) -> Any:
  """Copies the first device's part of a replicated tree to the host, as NumPy arrays."""
  copies = jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), tree))
  return jax.tree.map(lambda x: x[0, ...], copies)  # `...` keeps 0-d results arrays.


def key(seed: int) -> Key[Array, ""]:
  """`jax.random.key` of a seed on the host."""
  return jax.random.key(jax.device_put(np.int64(seed).astype(np.int32)))  # Truncated as in JAX.


def fold_in(key: Key[Array, ""], number: int) -> Key[Array, ""]:
  """`jax.random.fold_in` of a number on the host."""
  return jax.random.fold_in(key, jax.device_put(np.uint32(number)))


def own_part(array: Shaped[np.ndarray, "n ..."]) -> Shaped[np.ndarray, "part ..."]:
  """Returns this process's part of the leading axis."""
  return np.split(array, process_count())[process_index()]


def shard(tree: Any) -> Any:
  """Splits the leading axis of every array over this process's devices: `[D, N / D, ...]`.

  The arrays stay on the host; `spread` and `ahead` put them on the devices.
  """
  return jax.tree.map(lambda x: np.reshape(x, (local_device_count(), -1, *np.shape(x)[1:])), tree)


def unshard(tree: Any) -> Any:
  """Copies this process's `[D, N / D, ...]` arrays to the host as `[N, ...]` NumPy arrays."""
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(tree))


def spread(tree: Any) -> Any:
  """Splits the leading axis of every array evenly over this process's devices.

  Apply it to the result of `shard` for `pmap`; or to other arrays for `jit`, together with
  arguments from `on_every_device`.
  """
  return jax.device_put(tree, NamedSharding(_local_mesh(), PartitionSpec(AXIS)))


def ahead(batches: Iterable[Any], depth: int = 2) -> Iterator[Any]:
  """Yields batches on the devices, transferring the next ones ahead of time.

  `spread` transfers the arrays; those on devices already are left as they are. Like
  `flax.jax_utils.prefetch_to_device`, it reads ahead on the calling thread.

  Args:
    batches: trees of arrays `[D, ...]`, such as `shard` returns.
    depth: the most batches on the devices at a time, including the one yielded last.
  """
  batches, waiting = iter(batches), collections.deque[Any]()

  def put(count: int) -> None:
    for batch in itertools.islice(batches, count):
      waiting.append(jax.tree.map(lambda x: x if isinstance(x, jax.Array) else spread(x), batch))

  put(depth)
  while waiting:
    yield waiting.popleft()
    put(1)


def on_every_device(tree: Any) -> Any:
  """Copies every array to each device of this process, for functions compiled by `jit`."""
  return jax.device_put(tree, NamedSharding(_local_mesh(), PartitionSpec()))


def _local_mesh() -> Mesh:
  return Mesh(np.array(jax.local_devices()), (AXIS,))


def check_divisible(name: str, batch: int) -> None:
  """Raises a ValueError unless `batch` is positive and a multiple of the number of devices."""
  if batch < 1 or batch % device_count():
    raise InvalidValue(
      f"{name}={batch} does not split over {device_count()} devices; use a multiple of "
      f"{device_count()}"
    )
