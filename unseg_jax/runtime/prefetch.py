"""Prefetching on other threads, to a fixed depth that bounds memory."""

import collections
import concurrent.futures
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(
  executor: concurrent.futures.Executor,
  function: Callable[[Item], Result],
  items: Iterable[Item],
  depth: int,
) -> Iterator[Result]:
  """Yields `function(item)` for each item, in order, while up to `depth` more are computed.

  The calling thread reads the items, each only when needed.
  """
  items = iter(items)
  pending = collections.deque(
    executor.submit(function, item) for item in itertools.islice(items, depth)
  )
  while pending:
    result = pending.popleft().result()
    for item in itertools.islice(items, 1):
      pending.append(executor.submit(function, item))
    yield result


def read_ahead(
  executor: concurrent.futures.Executor, items: Iterable[Item], depth: int
) -> Iterator[Item]:
  """Yields the items while the executor's single thread reads up to `depth` more."""
  items = iter(items)
  for taken in prefetch(
    executor, lambda _: list(itertools.islice(items, 1)), itertools.repeat(None), depth
  ):
    if not taken:
      return
    yield from taken
