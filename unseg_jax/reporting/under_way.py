"""How far each stage of a run is, and when the run last wrote a file."""

import dataclasses
import datetime
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.serialization
import numpy as np

from unseg_jax.artifacts import stage_records
from unseg_jax.direction.search import SearchResult
from unseg_jax.reporting.charts import Columns
from unseg_jax.storage import places, whole_files

STAGES = ("search", "generate", "train", "adapt", "evaluate")  # A report needs no others.


@dataclasses.dataclass(frozen=True)
class Stage:
  """The state of a stage.

  Attributes:
    name: such as "search".
    begun: whether its folder holds anything.
    complete: whether its result is complete.
    state: a short text, such as "10 of 50 steps".
    written: when it last wrote a file, in seconds since 1970; None: unknown, or nothing written.
  """

  name: str
  begun: bool
  complete: bool
  state: str
  written: float | None


def stages(directory: Path, config: Mapping[str, Any]) -> list[Stage]:
  """Returns the state of each stage that a run's config does not leave out, in order.

  Args:
    directory: the workdir.
    config: its settings.
  """
  left_out = stage_records.left_out(config)
  return [_stage(directory, config, name) for name in STAGES if name not in left_out]


def _stage(directory: Path, config: Mapping[str, Any], name: str) -> Stage:
  folder = directory / name
  written = _last_write([folder, directory / "events" / name])
  if stage_records.has_complete_stage(folder):
    return Stage(name, True, True, "complete", written)
  if not (folder / stage_records.RECORD).exists():
    return Stage(name, False, False, "not begun", None)
  count = {"search": _search, "generate": _generate, "train": _train}.get(name)
  state = count(folder, config[name]) if count else "begun, no result yet"
  return Stage(name, True, False, state, written)


def state_text(stage: Stage, now: float) -> str:
  """Returns how far a stage is and, unless it is complete, when it last wrote a file."""
  if stage.complete or not stage.begun:
    return stage.state
  return f"{stage.state} ({last_write(stage.written, now)})"


def when_read(found: Sequence[Stage], read_at: float) -> str:
  """Returns a sentence on when a workdir was read, and how long before the run last wrote a file.

  Args:
    found: from `stages`.
    read_at: in seconds since 1970.
  """
  read = datetime.datetime.fromtimestamp(read_at, datetime.UTC)
  sentence = f"This page shows the run on {read.day} {read:%B %Y} at {read:%H:%M} UTC"
  if not any(stage.begun for stage in found):
    return f"{sentence}. No stage had begun."
  written = [stage.written for stage in found if stage.written is not None]
  if not written:
    return f"{sentence}. The workdir is in a bucket, so the time of the last write is unknown."
  return f"{sentence}, {age(read_at - max(written))} after its last write."


def describe(found: Sequence[Stage], now: float | None = None) -> list[str]:
  """Returns a sentence for each stage that has begun and is not complete.

  Args:
    found: from `stages`.
    now: the time, in seconds since 1970; None: the time of the call.
  """
  now = time.time() if now is None else now
  return [
    f"The stage {stage.name} is not complete: {state_text(stage, now)}."
    for stage in found
    if stage.begun and not stage.complete
  ]


def _search(folder: Path, config: Mapping[str, Any]) -> str:
  return f"{len(search_curves(folder).get('step', ())):,} of {config['steps']:,} steps"


def _generate(folder: Path, config: Mapping[str, Any]) -> str:
  made = counts(folder)
  return ", ".join(
    f"{made.get(split, {}).get('records', 0):,} of {size:,} {split} pairs"
    for split, size in config["num_images"].items()
    if size
  )


def _train(folder: Path, config: Mapping[str, Any]) -> str:
  path = folder / "history.json"
  steps = whole_files.read_json(path)["Training"]["step"] if path.exists() else []
  return f"{steps[-1] if steps else 0:,} of {config['steps']:,} steps at the last checkpoint"


def _last_write(folders: Sequence[Path]) -> float | None:
  """The last modification; None for a bucket's copy, whose files have the time of the download."""
  files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
  if places.is_copied(folders[0]) or not files:
    return None
  return max(path.stat().st_mtime for path in files)


def last_write(written: float | None, now: float) -> str:
  """Returns a phrase such as `last write 3 minutes ago`."""
  if written is None:
    return "time of the last write unknown, as the workdir is in a bucket"
  return f"last write {age(now - written)} ago"


def age(seconds: float) -> str:
  """Returns a time span in one unit, such as `3 minutes`; at least two of that unit."""
  for length, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
    if seconds >= 2 * length:
      return f"{seconds / length:.0f} {name}s"
  count = round(max(seconds, 0))
  return f"{count} second{'' if count == 1 else 's'}"


def search_curves(folder: Path) -> Columns:
  """Returns the losses of a search's first restart up to its last saved state."""
  path = folder / "state.msgpack"
  if not path.exists():
    return {}
  saved = flax.serialization.msgpack_restore(path.read_bytes())
  losses = {name: np.asarray(values, np.float32) for name, values in saved["history"].items()}
  return SearchResult(np.asarray(saved["state"]["directions"]), losses, {}).history(0)


def counts(folder: Path) -> dict[str, dict[str, Any]]:
  """Sums up the finished shards of each split: `records`, `candidates` and `accepted`."""
  splits: dict[str, dict[str, Any]] = {}
  for path in sorted((folder / "counts").glob("*.json")):
    shard = whole_files.read_json(path)
    split = path.name.partition("-")[2].partition(".")[0]
    made = splits.setdefault(split, {"records": 0, "candidates": 0, "accepted": {}})
    for name in ("records", "candidates"):
      made[name] += shard[name]
    for name, count in shard["accepted"].items():
      made["accepted"][name] = made["accepted"].get(name, 0) + count
  return splits


def filters(folder: Path) -> dict[str, float]:
  """Returns the share of the candidates so far that each filter accepts."""
  every = counts(folder).values()
  candidates = sum(made["candidates"] for made in every)
  names = {name for made in every for name in made["accepted"]}
  return {
    name: sum(made["accepted"].get(name, 0) for made in every) / max(candidates, 1)
    for name in sorted(names)
  }
