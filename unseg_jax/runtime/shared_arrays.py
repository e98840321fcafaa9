"""An executor of worker processes that exchanges arrays through shared memory.

A pipe needs several times as much CPU time per byte, most of it in the process that feeds the
devices. This module imports no JAX, so a worker process starts within half a second.
"""

import collections
import concurrent.futures
import contextlib
import ctypes
import dataclasses
import functools
import itertools
import multiprocessing
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np

# Shared memory for the arrays of one task. Larger arrays take the pipe.
BLOCK_BYTES = 4 << 20
ALIGNMENT = 64

_worker_blocks: Sequence[np.ndarray] = ()  # The shared memory, in a worker process.


def items_per_task(item_bytes: int) -> int:
  """Returns the number of items of a task whose arrays fill at most half of a block."""
  return max(1, BLOCK_BYTES // 2 // item_bytes)


@dataclasses.dataclass(frozen=True)
class Packed:
  """A pickled value whose arrays lie outside of the pickle, as PEP 574 describes.

  Attributes:
    pickled: the value without its arrays.
    places: the first byte of each array in the block, and the byte after its last one.
  """

  pickled: bytes
  places: tuple[tuple[int, int], ...] = ()

  @property
  def end(self) -> int:
    """The first free byte of the block."""
    return self.places[-1][1] if self.places else 0


def pack(value: Any, block: np.ndarray, first: int = 0) -> Packed:
  """Pickles a value and copies its arrays to `block` `[bytes]`, from byte `first` on.

  Arrays that do not fit become part of the pickle.
  """
  buffers: list[pickle.PickleBuffer] = []
  pickled = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
  arrays = [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]
  # Every array begins at a multiple of the alignment.
  sizes = [-(-array.size // ALIGNMENT) * ALIGNMENT for array in arrays]
  starts = list(itertools.accumulate(sizes, initial=-(-first // ALIGNMENT) * ALIGNMENT))
  if starts[-1] > block.size:
    return Packed(pickle.dumps(value, protocol=5))
  places = [(start, start + array.size) for start, array in zip(starts, arrays, strict=False)]
  for (start, end), array in zip(places, arrays, strict=True):
    block[start:end] = array
  return Packed(pickled, tuple(places))


def unpack(packed: Packed, block: np.ndarray, copy: bool) -> Any:
  """Returns the value; its arrays are views of `block`, or copies."""
  views = [block[start:end] for start, end in packed.places]
  return pickle.loads(packed.pickled, buffers=[x.copy() for x in views] if copy else views)


class SharedArraysExecutor(concurrent.futures.Executor):
  """A pool of worker processes; tasks start in the order of `submit`.

  Functions must not keep their arrays: the next task overwrites them.
  """

  def __init__(
    self,
    count: int,
    context: multiprocessing.context.BaseContext,
    begin: Callable[[], None],
    end: Callable[[], None],
  ) -> None:
    """Starts no process yet.

    Args:
      count: number of worker processes.
      context: how processes start.
      begin: is called at the start of each worker process.
      end: is called if a worker process dies; it must end the others.
    """
    self._end = end
    block_count = 2 * count + 2  # A running and a waiting task per worker, and some to spare.
    memory = [context.RawArray(ctypes.c_ubyte, BLOCK_BYTES) for _ in range(block_count)]
    self._blocks = _as_arrays(memory)
    self._free = list(range(block_count))
    self._waiting: collections.deque = collections.deque()
    # Reentrant, because a task may end before its callback is added.
    self._lock = threading.RLock()
    self._pool = concurrent.futures.ProcessPoolExecutor(count, context, _begin, (begin, memory))

  def submit(
    self, function: Callable[..., Any], /, *args: Any, **kwargs: Any
  ) -> concurrent.futures.Future[Any]:
    """Schedules a call. The result's arrays belong to the caller."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    self._waiting.append((future, functools.partial(function, *args, **kwargs)))
    self._start_waiting()
    return future

  def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
    """Cancels the tasks that have not started, with any `cancel_futures`."""
    with contextlib.suppress(IndexError):
      while True:
        self._waiting.popleft()[0].cancel()
    self._pool.shutdown(wait, cancel_futures=cancel_futures)

  def _start_waiting(self) -> None:
    with self._lock:
      while self._free and (task := self._next()):
        self._start(*task)

  def _next(self) -> tuple[concurrent.futures.Future[Any], Callable[[], Any]] | None:
    """Removes and returns the next task that is not cancelled; needs no lock."""
    with contextlib.suppress(IndexError):
      while True:
        future, call = self._waiting.popleft()
        if future.set_running_or_notify_cancel():
          return future, call
    return None

  def _start(self, future: concurrent.futures.Future[Any], call: Callable[[], Any]) -> None:
    number = self._free.pop()
    try:
      packed = pack(call, self._blocks[number])
      running = self._pool.submit(_run, number, packed)
    except Exception as error:
      self._free.append(number)
      future.set_exception(error)
    else:
      running.add_done_callback(functools.partial(self._finish, future, number))

  def _finish(
    self,
    future: concurrent.futures.Future[Any],
    number: int,
    ended: concurrent.futures.Future[Packed],
  ) -> None:
    error = ended.exception()
    if isinstance(error, BrokenProcessPool):
      self._free.append(number)
      self._give_up(future, error)
      return
    value = None
    if not error:
      try:
        value = unpack(ended.result(), self._blocks[number], copy=True)
      except Exception as failed:  # Memory ran out, for example.
        error = failed
    with self._lock:
      self._free.append(number)
    self._start_waiting()
    if error:
      future.set_exception(error)
    else:
      future.set_result(value)

  def _give_up(self, future: concurrent.futures.Future[Any], error: BaseException) -> None:
    """Ends the workers, and fails a task and all waiting ones.

    The pool calls this under its own lock, for which `submit` may wait while it holds ours. So this
    function takes no lock.
    """
    self._end()
    future.set_exception(error)
    while task := self._next():
      task[0].set_exception(error)


def _as_arrays(memory: Sequence[Any]) -> list[np.ndarray]:
  return [np.frombuffer(block, np.uint8) for block in memory]


def _begin(begin: Callable[[], None], memory: Sequence[Any]) -> None:
  """Prepares a worker process."""
  global _worker_blocks
  _worker_blocks = _as_arrays(memory)
  begin()


def _run(number: int, packed: Packed) -> Packed:
  """Runs a task in a worker process."""
  block = _worker_blocks[number]
  return pack(unpack(packed, block, copy=False)(), block, packed.end)
