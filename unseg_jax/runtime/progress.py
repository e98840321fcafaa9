"""Progress of long work: a bar with rate and time left, on process 0 only."""

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, TypeVar

from unseg_jax.runtime import parallel

if TYPE_CHECKING:
  import tqdm

Item = TypeVar("Item")


def bar(description: str, total: int, done: int = 0, unit: str = "step") -> "tqdm.tqdm":
  """Returns a progress bar to be used as a context manager; `done` steps are already behind."""
  import tqdm  # Here: what only computes shows no progress, and may lack it.

  return tqdm.tqdm(
    desc=description,
    total=total,
    initial=done,
    unit=unit,
    mininterval=1.0,
    dynamic_ncols=True,
    disable=not parallel.is_primary(),
  )


def counted(description: str, items: Collection[Item], unit: str = "picture") -> Iterator[Item]:
  """Yields the items while a progress bar counts them."""
  with bar(description, len(items), unit=unit) as progress:
    for item in items:
      yield item
      progress.update()
