"""Progress bars with rate and remaining time, on process 0 only."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

from unseg_jax.runtime import parallel

if TYPE_CHECKING:
  import tqdm

Item = TypeVar("Item")
ItemRead = TypeVar("ItemRead", covariant=True)


@runtime_checkable
class SizedIterable(Protocol[ItemRead]):
  """Items whose number is known before they are read."""

  def __len__(self) -> int: ...

  def __iter__(self) -> Iterator[ItemRead]: ...


def bar(description: str, total: int, done: int = 0, unit: str = "step") -> "tqdm.tqdm":
  """Returns a progress bar that starts at `done` steps. Use it as a context manager."""
  import tqdm  # Imported here: it may be missing where only computation runs.

  return tqdm.tqdm(
    desc=description,
    total=total,
    initial=done,
    unit=unit,
    mininterval=1.0,
    dynamic_ncols=True,
    disable=not parallel.is_primary(),
  )


def counted(description: str, items: SizedIterable[Item], unit: str = "picture") -> Iterator[Item]:
  """Yields the items while a progress bar counts them."""
  with bar(description, len(items), unit=unit) as progress:
    for item in items:
      yield item
      progress.update()
