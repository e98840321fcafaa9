"""Runs the main job from end to end with its command, if its libraries are installed."""

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from on_device.rows import MOST_WORDS, NotMeasured, Report

ROOT = Path(__file__).resolve().parents[2]
# Packages that the job imports, besides those for computing.
PACKAGES = ("absl", "array_record", "clu", "dm_pix", "fsspec", "grain", "importlib_resources")
PACKAGES += ("jinja2", "matplotlib", "ml_collections", "orbax", "pooch", "requests", "safetensors")
PACKAGES += ("scipy", "tenacity", "tensorflow_datasets", "tqdm")
SMALLEST = {
  "search.steps": 2,
  "search.batch_size": 4,
  "generate.num_images.train": 16,
  "generate.num_images.validation": 4,
  "generate.num_images.test": 4,
  "generate.chunk": 8,
  "generate.shard_candidates": 16,
  "generate.area": "(0.0,1.0)",  # A direction after two search steps passes no filter for faces.
  "generate.histogram_maxima": 0,
  "generate.roundness": 0.0,
  "train.features": "(4,8)",
  "train.steps": 2,
  "train.batch_size": 4,
  "train.log_every": 1,
  "train.checkpoint_every": 2,
  "report.samples": 4,
}


def run(report: Report, smoke: bool) -> None:
  """Writes the seconds of the job and of its stages, and the segmenter's scores."""
  report.attempt("the main job", measure, report, smoke)


def measure(report: Report, smoke: bool) -> None:
  """Runs the job in a temporary folder."""
  with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, "-m", "unseg_jax.main", "--config=configs/dcgan_faces.py"]
    command += [f"--workdir={folder}"]
    command += [f"--config.{name}={value}" for name, value in SMALLEST.items() if smoke]
    start = time.perf_counter()
    begun = follow(command, start)
    seconds = time.perf_counter() - start
    ends = [*list(begun.values())[1:], seconds]
    for (stage, begin), end in zip(begun.items(), ends, strict=True):
      report.add(f"stage {stage}", end - begin, "s")
    report.add("the main job", seconds, "s", "including start and compilation")
    scores = json.loads((Path(folder) / "metrics.json").read_text())
  for name, row in scores.items():
    report.add(f"IoU, {name}", float(row["iou"]), "", "held-out pairs")


def follow(command: list[str], start: float) -> dict[str, float]:
  """Runs the job's command and watches its stages.

  Args:
    command: the command.
    start: `time.perf_counter()` at its start.

  Returns:
    The start of each stage, in seconds after `start`.

  Raises:
    NotMeasured: a package that the job needs is not installed.
    RuntimeError: the job failed.
  """
  process = subprocess.Popen(
    command, cwd=ROOT, stdout=sys.stderr, stderr=subprocess.PIPE, text=True
  )
  begun, lines = {}, []
  for line in process.stderr:
    sys.stderr.write(line)
    lines.append(line.strip())
    if found := re.search(r"stage (\w+): ", line):
      begun[found[1]] = time.perf_counter() - start
  if process.wait():
    last = next((line for line in reversed(lines) if line), "no message")
    if needed := re.search(r"No module named '(\w+)", last):
      raise NotMeasured(f"needs {', '.join(dict.fromkeys([needed[1], *missing()]))}")
    raise RuntimeError(f"exit status {process.returncode}: {last[:MOST_WORDS]}")
  return begun


def missing() -> Iterator[str]:
  """Yields the packages of the job that are not installed."""
  return (package for package in PACKAGES if importlib.util.find_spec(package) is None)
