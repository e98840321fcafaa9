"""Counts the candidates that filters accept, and shows them while a split is made."""

import dataclasses
from typing import Any

import numpy as np

from unseg_jax.array_types import Int
from unseg_jax.images import drawing
from unseg_jax.runtime import tracking

# Seconds between two points of the curves.
POINT_SECONDS = 5
# Pairs of each split's first chunk in the event files.
PAIRS_SHOWN = 8


@dataclasses.dataclass
class Acceptance:
  """Counts of candidates, and of those accepted by each filter alone and by all together."""

  candidates: int = 0
  accepted: dict[str, int] = dataclasses.field(default_factory=dict)

  def add(self, candidates: int, accepted: dict[str, int]) -> None:
    """Adds the counts of another batch."""
    self.candidates += candidates
    for name, count in accepted.items():
      self.accepted[name] = self.accepted.get(name, 0) + count

  def rates(self) -> dict[str, float]:
    """Returns the acceptance rate of each filter."""
    return {name: count / max(self.candidates, 1) for name, count in self.accepted.items()}

  def __str__(self) -> str:
    rates = ", ".join(f"{name} {rate:.1%}" for name, rate in self.rates().items())
    return f"accepted of {self.candidates:,} candidates: {rates}"


@dataclasses.dataclass
class Live:
  """Reports the progress of a split while this process makes it.

  Attributes:
    events: receives the curves and the first pairs.
    watch: measures the time since the last point.
    new: the numbers of candidates and accepted pairs since the last point.
    is_open: whether a chunk was computed.
  """

  events: tracking.EventWriter
  watch: tracking.Stopwatch = dataclasses.field(default_factory=tracking.Stopwatch)
  new: tuple[int, int] = (0, 0)
  is_open: bool = False

  def begin(self, seen: Acceptance) -> None:
    """Continues the curves after the candidates of an earlier run."""
    if not self.is_open:
      self.is_open = True
      self.events.restart(seen.candidates + 1)
      self.watch.restart()

  def add(self, candidates: int, kept: int, seen: Acceptance) -> None:
    """Adds the counts of a chunk, and a point if one is due."""
    self.new = self.new[0] + candidates, self.new[1] + kept
    if self.watch.seconds >= POINT_SECONDS:
      self.point(seen)

  def point(self, seen: Acceptance) -> None:
    """Adds a point unless nothing was computed since the last one."""
    if not self.new[0]:
      return
    accepted = {f"accepted_{name}": share for name, share in seen.rates().items()}
    speed = self.watch.rates(candidates=self.new[0], pairs=self.new[1])
    self.events.point(seen.candidates, accepted | speed)
    self.events.flush()
    self.new = 0, 0

  def show(self, chunk: dict[str, Any], kept: Int[np.ndarray, " pairs"]) -> None:
    """Shows the first accepted pairs of the split's first chunk."""
    if chunk["candidate"][0] == 0 and len(kept):
      pairs = [(chunk["image"][i], chunk["mask"][i]) for i in kept[:PAIRS_SHOWN]]
      shown = np.stack([drawing.overlay(image, mask) for image, mask in pairs])
      self.events.pictures(0, "pairs", shown)
