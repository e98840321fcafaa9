"""The cache folder stays below its limit; files that exist nowhere else are never removed."""

import fcntl
import json
import os
import subprocess
import sys

import pytest
from whole_runs import ROOT

from unseg_jax.storage import cache


def make(path, size, used):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(b"x" * size)
  os.utime(path, (used, used))
  return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """Creates a cache with a download, a compiled program and a run's copy of 1000 bytes each."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  folder = tmp_path / "unseg_jax"
  make(folder / "0123_checkpoint.pt", 1000, 3)
  make(folder / "compiled" / "jit_step-cache", 1000, 2)
  copy = folder / "places" / "gs_bucket" / "0"
  state = make(copy / "config.json", 1000, 1).stat()
  synced = {"config.json": ["tag", state.st_size, state.st_mtime_ns]}
  copy.with_suffix(".json").write_text(json.dumps(synced))
  copy.with_suffix(".lock").touch()
  os.utime(copy, (1, 1))
  return folder


def test_what_was_used_least_recently_goes_first(folder):
  assert [item.kind for item in cache.contents()] == ["places", "compiled", "downloads"]
  assert cache.trim(3000) == []
  assert [item.kind for item in cache.trim(2500)] == ["places"]
  os.utime(folder / "compiled" / "jit_step-cache", (4, 4))
  assert [item.kind for item in cache.trim(1000)] == ["downloads"]
  assert [item.kind for item in cache.contents()] == ["compiled"]


def test_unsent_results_and_copies_in_use_stay(folder):
  copy = folder / "places" / "gs_bucket" / "0"
  with open(copy.with_suffix(".lock"), "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert [item.kind for item in cache.trim(0)] == ["compiled", "downloads"]
  (copy / "metrics.json").write_text("{}")
  assert cache.trim(0) == [] and (copy / "config.json").exists()
  (copy / "metrics.json").unlink()
  assert [item.kind for item in cache.trim(0)] == ["places"] and not copy.exists()


@pytest.mark.parametrize("limit", ["much", "-1", "nan"])
def test_a_limit_that_is_no_number_is_named(folder, monkeypatch, limit):
  monkeypatch.setenv(cache.LIMIT, limit)
  with pytest.raises(ValueError, match=f"{cache.LIMIT}={limit}: expected a number of gigabytes"):
    cache.trim()


def test_the_command_shows_and_empties_it(folder):
  command = [sys.executable, "-m", "unseg_jax.cache"]
  shown = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout
  assert f"{folder}: 0.000 GB of at most 50 GB" in shown and "in 1" in shown
  subprocess.run([*command, "--empty"], cwd=ROOT, check=True)
  assert cache.contents() == []
