"""A workdir or an output folder belongs to one run at a time."""

import json
import os
import re
import signal
import socket
import subprocess
import sys

import bucket_servers
import pytest
from whole_runs import ROOT, contents, finish, start_main, start_python, wait_until

from unseg_jax import pipeline
from unseg_jax.storage import locks, stores

HOLD = """
import sys, time
from unseg_jax.storage import locks
with locks.held(sys.argv[1], "--workdir"):
  print("held", flush=True)
  time.sleep(float(sys.argv[2]))
"""


def held_by(process):
  """Returns the message that a second run shows about the first."""
  return f"is in use by process {process.pid} on {re.escape(socket.gethostname())} since 20.*"


@pytest.fixture
def hold():
  """Starts other processes that lock a folder; they end with the test."""
  started = []

  def start(place, seconds=600):
    process = start_python(HOLD, place, seconds)
    started.append(process)
    assert process.stdout.readline() == "held\n"
    return process

  yield start
  for process in started:
    process.kill()
    process.communicate()


class TestOnDisk:
  def test_names_the_holder_and_changes_nothing(self, hold, tmp_path):
    process = hold(tmp_path)
    before = contents(tmp_path)
    message = held_by(process) + "another --output"
    with pytest.raises(locks.Held, match=message), locks.held(tmp_path, "--output"):
      pass
    assert contents(tmp_path) == before

  def test_is_free_after_a_kill(self, hold, tmp_path):
    process = hold(tmp_path)
    process.kill()
    process.wait()
    assert (tmp_path / locks.NAME).exists()
    with locks.held(tmp_path, "--workdir"):
      assert json.loads((tmp_path / locks.NAME).read_text())["pid"] == os.getpid()

  def test_leaves_nothing_behind(self, tmp_path):
    with locks.held(tmp_path / "new" / "run", "--workdir"):
      assert (tmp_path / "new" / "run").is_dir()
    assert not list(tmp_path.iterdir())
    with locks.held(tmp_path / "run", "--workdir"):
      (tmp_path / "run" / "result").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "result"]

  def test_one_process_of_several_gets_it(self, tmp_path):
    code = "from unseg_jax.storage import locks\nimport sys\n"
    code += "try:\n  for _ in range(500):\n"
    code += "    with locks.held(sys.argv[1], '--workdir'): open(sys.argv[1] + '/x', 'x').close()"
    code += "; __import__('os').remove(sys.argv[1] + '/x')\n"
    code += "except locks.Held: sys.exit(3)"
    started = [start_python(code, tmp_path) for _ in range(3)]
    # Two at a time would find the file that each creates.
    statuses = {finish(process).returncode for process in started}
    assert 0 in statuses and statuses <= {0, 3}


@pytest.fixture
def place(request):
  """Yields a new folder in fsspec's memory store."""
  return f"memory://{request.node.name}"


def write(place, **changes):
  """Writes the lease of a run on another machine."""
  tree = locks._Lease(locks.file_trees.open_tree(place))
  holder = {"host": "elsewhere", "pid": 7, "since": 0.0, "machine": "another", "renewed": 0.0}
  tree.tree.write(locks.NAME, json.dumps(holder | changes).encode())


class TestInAStore:
  @pytest.fixture(autouse=True)
  def without_pause(self, monkeypatch):
    monkeypatch.setattr(locks, "_PAUSE_SECONDS", 0.0)

  def test_names_the_holder(self, place):
    write(place, renewed=locks.time.time() - 5)
    message = r"in use by process 7 on elsewhere since .* \(renewed [56] s ago; .* --output"
    with pytest.raises(locks.Held, match=message), locks.held(place, "--output"):
      pass

  def test_expires(self, place):
    write(place, renewed=locks.time.time() - locks.EXPIRY_SECONDS - 1)
    with locks.held(place, "--output"):
      holder = locks._Lease(locks.file_trees.open_tree(place)).read()
      assert holder["pid"] == os.getpid()
    assert not stores.open_store(place).entry(locks.NAME)

  def test_of_a_process_that_has_ended_on_this_machine_is_free(self, place):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write(place, renewed=locks.time.time(), machine=locks._machine(), pid=ended.pid)
    with locks.held(place, "--output"):
      pass

  def test_is_renewed(self, place, monkeypatch):
    monkeypatch.setattr(locks, "RENEW_SECONDS", 0.05)
    with locks.held(place, "--output"):
      lease = locks._Lease(locks.file_trees.open_tree(place))
      # In memory, an object that is being written is empty for a moment.
      first = lease.read().get("renewed", 0.0)
      wait_until(lambda: lease.read().get("renewed", 0.0) > first, "the lease is not renewed")

  def test_of_two_that_start_together_one_goes_on(self, place, monkeypatch):
    monkeypatch.setattr(locks.time, "sleep", lambda _: write(place, renewed=locks.time.time()))
    with pytest.raises(locks.Held, match="on elsewhere"), locks.held(place, "--output"):
      pass
    assert stores.open_store(place).entry(locks.NAME)

  def test_is_given_back_by_a_process_that_ends_at_once(self, place):
    with locks.held(place, "--output"):
      locks.release()
      assert not stores.open_store(place).entry(locks.NAME)

  def test_is_none_of_the_contents(self, place):
    with locks.held(place, "--output"):
      assert stores.open_store(place).list() == {}


def test_in_a_bucket(hold, tmp_path, monkeypatch):
  with bucket_servers.server("s3") as address:
    bucket_servers.use("s3", address, tmp_path, monkeypatch)
    process = hold("s3://bucket/runs/one")
    message = held_by(process)
    with pytest.raises(locks.Held, match=message), locks.held("s3://bucket/runs/one", "--workdir"):
      pass
    process.kill()
    process.wait()
    with locks.held("s3://bucket/runs/one", "--workdir"):
      pass


@pytest.mark.usefixtures("compile_quickly")
def test_two_runs_in_one_workdir(generator, tmp_path):
  flags = (f"--config.generator={generator}", f"--workdir={tmp_path}", "--stages=search")
  wait = "import time\nfrom unseg_jax.direction import search\nsave = search._save\n"
  wait += "def slow(*arguments):\n  save(*arguments)\n  time.sleep(600)\nsearch._save = slow\n"
  first = start_main(*flags, before=wait)
  wait_until((tmp_path / "search" / "state.msgpack").exists, "the search does not start")
  before = contents(tmp_path)
  second = finish(start_main(*flags))
  assert second.returncode == 1 and second.stdout == ""
  message = f"error: {re.escape(str(tmp_path))} {held_by(first)}.*another --workdir"
  assert re.fullmatch(message, second.stderr.strip())
  assert contents(tmp_path) == before and first.poll() is None
  first.send_signal(signal.SIGKILL)
  first.communicate()
  third = finish(start_main(*flags))
  assert third.returncode == 0, third.stderr
  assert (tmp_path / "search" / "direction.npy").exists()
  assert not (tmp_path / locks.NAME).exists()


def test_two_predictions_into_one_folder(hold, tmp_path):
  process = hold(tmp_path / "out")
  command = [sys.executable, "-m", "unseg_jax.predict", f"--output={tmp_path / 'out'}"]
  command += [f"--input={ROOT / 'unseg_jax/pretrained/example/astronaut_head.png'}"]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 1
  assert re.fullmatch(f"error: .*out {held_by(process)}.*another --output\n", done.stderr)
  assert [path.name for path in (tmp_path / "out").iterdir()] == [locks.NAME]


def test_a_run_holds_its_workdir(config, tmp_path, hold):
  hold(tmp_path)
  with pytest.raises(locks.Held, match="another --workdir"):
    pipeline.run(config, tmp_path, pipeline.STAGES)
