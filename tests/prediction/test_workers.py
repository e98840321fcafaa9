"""Worker processes read and encode images as threads do, and end with `predict`."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from predicting import save
from whole_runs import ROOT, children, finish, is_running, start_python, wait_until

# Replaces the network, so that JAX is only imported.
COMMAND = """
import runpy, sys
sys.argv = ["predict", *sys.argv[1:]]
runpy.run_module("unseg_jax.predict", run_name="__main__", alter_sys=True)
"""


def test_a_worker_imports_no_jax():
  code = "import sys, unseg_jax.predict, unseg_jax.prediction.pictures\n"
  code += "print(*{'jax', 'flax', 'fsspec', 'tensorflow'} & set(sys.modules))"
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip() == ""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  folder = tmp_path_factory.mktemp("photos")
  for number in range(20):
    save(folder / f"{number:02}.png", (40 + number, 30), number)
  (folder / "broken.png").write_text("no picture")
  (folder / "link.png").symlink_to("nowhere")
  # The image is too large to be kept; it is read again for its outputs.
  save(folder / "large.png", (1100, 1000))
  return folder


def run(photos, output, workers):
  flags = [f"--input={photos}", f"--output={output}", f"--workers={workers}"]
  return start_python(COMMAND, *flags)


def test_outputs_are_the_same_on_any_number_of_workers(photos, tmp_path):
  written = []
  for workers in (0, 2):
    output = tmp_path / str(workers)
    done = finish(run(photos, output, workers))
    assert done.returncode == 1 and "21 of 23 pictures segmented" in done.stdout, done.stderr
    assert done.stderr.count("skipped: ") == 2 and "Traceback" not in done.stderr
    files = (path for path in output.rglob("*") if path.is_file())
    written.append({path.relative_to(output): path.read_bytes() for path in files})
  assert written[0] == written[1] and len(written[0]) == 3 * 21 + 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("to", ["parent", pytest.param("worker", marks=pytest.mark.slow)])
def test_a_kill_leaves_no_process_behind_and_what_was_made_stays(tmp_path, to):
  photos, output = tmp_path / "photos", tmp_path / "output"
  for number in range(60):
    save(photos / f"{number:02}.png", (600, 600), number)
  process = run(photos, output, 1)
  part = output / "predictions.parts" / "00000.jsonl"
  wait_until(lambda: part.exists() and part.stat().st_size, "nothing is written")
  started = [child for child in children(process.pid) if b"spawn_main" in command(child)]
  assert len(started) == 1
  os.kill(process.pid if to == "parent" else started[0], signal.SIGKILL)
  done = finish(process)
  assert "Traceback" not in done.stderr
  wait_until(lambda: not any(map(is_running, started)), "a worker is left behind")
  if to == "worker":
    assert done.returncode == 1 and "error: one of 1 worker processes ended" in done.stderr
    rows = part.read_text().splitlines()
    assert rows and all("outputs" in json.loads(row) for row in rows)


def command(process):
  return pathlib.Path(f"/proc/{process}/cmdline").read_bytes()
