"""Prefetching on other threads, to a fixed depth: memory stays flat whatever is slowest."""

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
  """Yields `function(item)` of each item, in order, while up to `depth` more are computed.

  The items are taken on the thread that asks for the results, and none before it is needed.
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
  """Yields the items, while the executor's one thread takes up to `depth` more of them."""
  items = iter(items)
  for taken in prefetch(
    executor, lambda _: list(itertools.islice(items, 1)), itertools.repeat(None), depth
  ):
    if not taken:
      return
    yield from taken
