"""Worker processes start quickly, ignore signals, and end with their parent."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
from whole_runs import ROOT, children, finish, is_running, start_python, wait_until

from unseg_jax.runtime import preemption, workers
from unseg_jax.synthesis import records

CALL = """
import os, signal, sys, time
from unseg_jax.runtime import preemption, workers
"""


def test_worker_starts_without_jax_or_tensorflow():
  code = "import sys, unseg_jax.segmentation.loading, unseg_jax.synthesis.records as _; "
  code += "print(*{'jax', 'tensorflow', 'grain', 'tensorflow_datasets'} & set(sys.modules))"
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stdout.strip() == ""


@pytest.mark.parametrize("count", [0, 1])
def test_error_in_a_worker_is_the_functions_own(count, tmp_path):
  missing = str(tmp_path / "shard")
  with workers.executor(count) as pool, pytest.raises(FileNotFoundError, match="shard"):
    pool.submit(records.read, missing, 0).result()


def test_worker_that_is_killed_is_one_clear_error():
  with pytest.raises(workers.WorkerDied, match=r"memory ran out.*--workers=0"):
    with workers.executor(1) as pool:
      tasks = [pool.submit(os._exit, 9) for _ in range(20)]
      tasks[-1].result()


def test_a_worker_that_is_killed_ends_the_others():
  begun = time.monotonic()
  with pytest.raises(workers.WorkerDied):
    with workers.executor(2) as pool:
      # Before its first event, Python's pool does not watch the worker that it started last.
      for wait in [pool.submit(time.sleep, 0.1) for _ in range(4)]:
        wait.result()
      pool.submit(time.sleep, 60)
      pool.submit(os._exit, 9).result()
  assert time.monotonic() - begun < 30


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(number):
  code = f"""{CALL}
if __name__ == "__main__":
  with workers.executor(2) as pool:
    for wait in [pool.submit(time.sleep, 0.1) for _ in range(4)]:
      wait.result()
    print("ready", flush=True)
    time.sleep(60)
"""
  parent = start_python(code)
  assert parent.stdout.readline() == "ready\n"
  started = children(parent.pid)
  assert len(started) >= 2
  parent.send_signal(number)
  assert finish(parent).returncode != 0
  wait_until(lambda: not any(map(is_running, started)), "a worker is left behind")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_signals_to_all_are_left_to_the_parent():
  """Ctrl-C in a terminal reaches every process; the workers finish their current tasks."""
  with workers.executor(1) as pool:
    pool.submit(time.sleep, 0).result()
    slow = pool.submit(time.sleep, 0.5)
    for worker in multiprocessing.active_children():
      for number in preemption.SIGNALS:
        os.kill(worker.pid, number)
    assert slow.result() is None


@pytest.mark.parametrize(
  ("usable", "computing_here", "expected"), [(2, False, 0), (8, False, 6), (8, True, 0)]
)
def test_default_leaves_two_processors(monkeypatch, usable, computing_here, expected):
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(usable)), raising=False)
  assert workers.spare_processors(computing_here) == expected
