"""What a run has so far that is under way, or was stopped: its stages, and how old they are."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.serialization
import numpy as np

from unseg_jax.artifacts import stage_records
from unseg_jax.direction.search import SearchResult
from unseg_jax.reporting.charts import Columns
from unseg_jax.storage import places, whole_files

STAGES = ("search", "generate", "train", "adapt")


def describe(directory: Path, config: Mapping[str, Any], now: float | None = None) -> list[str]:
  """Says of each stage that was begun and is not complete what it has, and when it last wrote.

  Args:
    directory: the workdir.
    config: its settings.
    now: the time, in seconds since 1970; None: that of the call.
  """
  now, lines = time.time() if now is None else now, []
  for stage in STAGES:
    folder = directory / stage
    if (folder / stage_records.RECORD).exists() and not stage_records.has_complete_stage(folder):
      found = {"search": _search, "generate": _generate, "train": _train}.get(stage)
      made = found(folder, config[stage]) if found else "no result yet"
      written = _written([folder, directory / "events" / stage], now)
      lines.append(f"The stage {stage} is not complete: {made}; {written}.")
  return lines


def _search(folder: Path, config: Mapping[str, Any]) -> str:
  steps = len(search_curves(folder).get("step", ()))
  return f"{steps} of {config['steps']} steps"


def _generate(folder: Path, config: Mapping[str, Any]) -> str:
  made = counts(folder)
  return ", ".join(
    f"{made.get(split, {}).get('records', 0):,} of {size:,} pairs of {split}"
    for split, size in config["num_images"].items()
    if size
  )


def _train(folder: Path, config: Mapping[str, Any]) -> str:
  path = folder / "history.json"
  steps = whole_files.read_json(path)["Training"]["step"] if path.exists() else []
  return f"{steps[-1] if steps else 0} of {config['steps']} steps up to its last checkpoint"


def _written(folders: list[Path], now: float) -> str:
  """When files were last written: of a copy the times are those at which they were fetched."""
  if places.is_copied(folders[0]):
    return "when it last wrote is not known of a bucket"
  files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
  return f"last written {age(now - max(path.stat().st_mtime for path in files))} ago"


def age(seconds: float) -> str:
  """A time span in the largest units that say enough, such as `3 minutes`."""
  for length, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
    if seconds >= 2 * length:
      return f"{seconds / length:.0f} {name}s"
  return f"{max(seconds, 0):.0f} seconds"


def search_curves(folder: Path) -> Columns:
  """The curves of a search's first restart, as far as its state was saved."""
  path = folder / "state.msgpack"
  if not path.exists():
    return {}
  saved = flax.serialization.msgpack_restore(path.read_bytes())
  losses = {name: np.asarray(values, np.float32) for name, values in saved["history"].items()}
  return SearchResult(np.asarray(saved["state"]["directions"]), losses, {}).history(0)


def counts(folder: Path) -> dict[str, dict[str, Any]]:
  """What the finished shards of each split hold: `records`, `candidates` and `accepted`."""
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
  """The share of the candidates so far that each filter accepts."""
  every = counts(folder).values()
  candidates = sum(made["candidates"] for made in every)
  names = {name for made in every for name in made["accepted"]}
  return {
    name: sum(made["accepted"].get(name, 0) for made in every) / max(candidates, 1)
    for name in sorted(names)
  }
