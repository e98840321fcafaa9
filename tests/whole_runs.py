"""Helpers of the tests of complete runs: the tiny config, results of a run, and other processes."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import orbax.checkpoint as ocp
import tiny_config
from array_record.python import array_record_module
from flax.traverse_util import flatten_dict
from ports import free_port

from unseg_jax.artifacts import checkpoints
from unseg_jax.segmentation import train
from unseg_jax.storage import whole_files

ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden"
SIZES = {"train": 40, "validation": 8, "test": 8}  # The sizes of the tiny config.


def make_config(generator):
  """Returns the tiny config with a generator file."""
  config = tiny_config.get_config()
  config.generator = str(generator)
  return config


def contents(folder):
  """Returns the state of every file, to check that nothing was changed."""
  return {
    path.relative_to(folder): (path.stat().st_mtime_ns, path.stat().st_size)
    for path in folder.rglob("*")
    if path.is_file()
  }


def records(folder, split):
  """Returns the serialised records of a split, in order."""
  serialised = []
  for path in sorted((folder / "generate").glob(f"synthetic-{split}.array_record-*")):
    reader = array_record_module.ArrayRecordReader(str(path))
    serialised += reader.read_all()
    reader.close()
  return serialised


def last_state(folder, stage="train"):
  """Returns the step and the state of a run's last checkpoint."""
  with checkpoints.training_manager(folder / stage / "checkpoints", read_only=True) as manager:
    step = manager.latest_step()
    args = ocp.args.Composite(state=ocp.args.PyTreeRestore())
    return step, manager.restore(step, args=args)["state"]


def assert_same_weights(state, expected):
  """Checks that the weights and statistics of two states agree up to rounding."""
  for name in ("params", "batch_stats"):
    leaves, expected_leaves = (flatten_dict(tree[name], sep="/") for tree in (state, expected))
    assert leaves.keys() == expected_leaves.keys()
    for key, value in leaves.items():
      np.testing.assert_allclose(
        value, expected_leaves[key], rtol=1e-5, atol=1e-7, err_msg=f"{name}/{key}"
      )


def start_python(code, *arguments, **environment):
  """Starts code in a new process, in the repository's root."""
  path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
  return subprocess.Popen(
    [sys.executable, "-c", code, *map(str, arguments)],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": path, **environment},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(process):
  """Waits for a process; returns it as `subprocess.run` does."""
  try:
    output, errors = process.communicate(timeout=300)
  finally:
    process.kill()
  return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def run_command(*arguments):
  """Runs Python with these arguments in the repository's root; it must succeed."""
  done = subprocess.run(
    [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=300
  )
  assert done.returncode == 0, done.stderr
  return done


def run_module(name, folder, *arguments, **environment):
  """Runs `python -m NAME` in a folder, as typed, until it ends."""
  return subprocess.run(
    [sys.executable, "-m", name, *map(str, arguments)],
    cwd=folder,
    env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    capture_output=True,
    text=True,
  )


def wait_until(condition, otherwise):
  """Waits up to a minute for a condition; else fails the test with this message."""
  deadline = time.monotonic() + 60
  while not condition():
    assert time.monotonic() < deadline, otherwise
    time.sleep(0.05)


def children(process):
  """Returns the running child processes of a process."""
  path = pathlib.Path(f"/proc/{process}/task/{process}/children")
  return [int(child) for child in path.read_text().split()]


def is_running(process):
  try:
    state = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
  except FileNotFoundError:
    return False
  return state != "Z"


def die_in_training(after):
  """Kills this process at the first validation after a number of steps."""
  fetch = train._fetch

  def die(state):
    saved = fetch(state)
    if int(saved["step"]) > after:
      os.kill(os.getpid(), signal.SIGKILL)
    return saved

  train._fetch = die


def of_processes(count, devices=1):
  """Returns the environments of several processes of one run, each with several devices."""
  common = {
    "JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}",
    "JAX_NUM_PROCESSES": str(count),
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
  }
  return [common | {"JAX_PROCESS_ID": str(number)} for number in range(count)]


def start_main(*arguments, before="", **environment):
  """Starts `python -m unseg_jax.main` on the tiny config, after some code of the test."""
  code = f"{before}\nimport runpy\nrunpy.run_module('unseg_jax.main', run_name='__main__')"
  return start_python(code, "--config=tests/tiny_config.py", *arguments, **environment)


def run_main(*arguments, before="", **environment):
  """Runs `python -m unseg_jax.main` on the tiny config until it ends."""
  return finish(start_main(*arguments, before=before, **environment))


# Runs each command in a child of its own, so that the libraries are loaded once.
RUN_EACH = """
import json, os, runpy, sys, traceback
import absl.app, jax, optax, orbax.checkpoint, tensorflow_datasets
from unseg_jax import pipeline
cases, folder = json.loads(sys.argv[1]), sys.argv[2]
sys.path.insert(0, "benchmarks")
statuses = []
for number, (command, arguments, platform) in enumerate(cases):
  child = os.fork()
  if child:
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    continue
  with open(f"{folder}/{number}.txt", "w") as file:
    os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
  os.environ["JAX_PLATFORMS"] = platform
  jax.config.update("jax_platforms", platform)
  module, name = command.startswith("-m "), command.removeprefix("-m ")
  sys.argv = [name, *(argument.replace("FOLDER", folder) for argument in arguments)]
  status = 0
  try:
    (runpy.run_module if module else runpy.run_path)(name, run_name="__main__")
  except SystemExit as end:
    status = end.code or 0
    if isinstance(status, str):
      print(status, file=sys.stderr)
      status = 1
  except BaseException:
    traceback.print_exc()
    status = 1
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)
print(json.dumps(statuses))
"""


def run_each(cases, folder, before=""):
  """Runs commands, one after the other, in the repository's root and after some code.

  Args:
    cases: for each the command as it is typed, but for `python`; its arguments, in which FOLDER
      stands for `folder`; and the value of JAX_PLATFORMS.
    folder: receives their output.
    before: runs first, once.

  Returns:
    For each its exit status and its output.
  """
  done = finish(start_python(f"{before}\n{RUN_EACH}", json.dumps(cases), folder))
  assert done.returncode == 0, done.stderr
  statuses = json.loads(done.stdout)
  return [(status, (folder / f"{i}.txt").read_text()) for i, status in enumerate(statuses)]


def assert_same_result(folder, finished):
  """Checks for the same direction, byte-identical records, equal weights and equal history."""
  directions = [np.load(run / "search" / "direction.npy") for run in (folder, finished)]
  np.testing.assert_array_equal(*directions)
  for split in SIZES:
    assert records(folder, split) == records(finished, split)
  (step, state), (expected_step, expected) = last_state(folder), last_state(finished)
  assert step == expected_step
  assert_same_weights(state, expected)
  histories = [whole_files.read_json(run / "train" / "history.json") for run in (folder, finished)]
  for curve, columns in histories[1].items():
    for name, values in columns.items():
      np.testing.assert_allclose(histories[0][curve][name], values, rtol=1e-4)


# Runs in the folders of a place, one after the other, each killed as often as it takes. It forks a
# child for each attempt, so that the libraries are loaded once.
KILLS = """
import os, pathlib, random, signal, sys, time
import unseg_jax.runtime.tensorboard_writer
from unseg_jax import pipeline
from whole_runs import make_config

generator, place, kills, longest = *sys.argv[1:3], *map(int, sys.argv[3:])
chance, workdir, survived = random.Random(0), 0, 0

def attempt(patience):
  child = os.fork()
  if child == 0:
    try:
      config, stages = make_config(generator), list(pipeline.STAGES)
      pipeline.run(config, f"{place}/{workdir}", stages, worker_count=kills % 3)
    except BaseException as error:
      print(repr(error), file=sys.stderr, flush=True)
      os._exit(1)
    os._exit(0)
  deadline = time.monotonic() + patience
  while time.monotonic() < deadline:
    ended, status = os.waitpid(child, os.WNOHANG)
    if ended:
      assert status == 0, status
      return True
    time.sleep(0.01)
  os.kill(child, signal.SIGKILL)
  os.waitpid(child, 0)
  return False

while kills:
  if attempt(chance.uniform(0, longest)):
    workdir += 1
  else:
    kills -= 1
assert attempt(120)

# Worker processes end with the process that was killed.
time.sleep(2)
for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
  try:
    command, parent = path.read_bytes(), path.with_name("stat").read_text().rpartition(")")[2]
  except OSError:
    continue
  assert b"multiprocessing.spawn" not in command or parent.split()[1] != "1", path
"""
