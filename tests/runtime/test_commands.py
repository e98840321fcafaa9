"""Errors that users can fix are one line; bugs keep the traceback of the user's and this code."""

import errno
import json
import pickle
import sys

import pytest
import tiny_config
from whole_runs import run_command, run_module

from unseg_jax import errors, generators, pipeline
from unseg_jax.artifacts import stage_records
from unseg_jax.runtime import commands, workers
from unseg_jax.segmentation import curves
from unseg_jax.synthesis import generate

BROKEN_GAN = """
import dataclasses
import jax.numpy as jnp
from tiny_generator import tiny_generator

def get():
  whole = tiny_generator()
  def generate(variables, latents, labels):
    return whole.generate(variables, latents, labels) + jnp.ones((1, 7, 7, 7))
  return dataclasses.replace(whole, generate=generate)
"""


@pytest.fixture
def broken_gan(tmp_path, monkeypatch):
  """Writes a user's own generator with wrong shapes; returns its file."""
  path = tmp_path / "broken_gan.py"
  path.write_text(BROKEN_GAN)
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.delitem(sys.modules, "broken_gan", raising=False)
  return path


def raised(function, *arguments):
  with pytest.raises(Exception) as caught:
    function(*arguments)
  return caught.value


def test_a_bug_in_a_users_own_gan_shows_their_line_and_no_library(
  broken_gan, tmp_path, monkeypatch
):
  config = tiny_config.get_config()
  config.generator = "broken_gan:get"
  error = raised(pipeline.run, config, tmp_path / "run", ("search",))
  assert isinstance(error, TypeError | ValueError) and not isinstance(error, errors.UserError)
  shown = commands.explain(error)
  assert f'File "{broken_gan}"' in shown and "jnp.ones((1, 7, 7, 7))" in shown
  assert "pipeline.py" in shown and "site-packages" not in shown
  assert type(error).__name__ in shown
  assert "--debug shows them" in shown.splitlines()[-1]
  monkeypatch.setattr(sys, "argv", [*sys.argv, "--debug"])
  assert "site-packages" in commands.explain(error)


@pytest.mark.parametrize(
  "error",
  [
    errors.InvalidValue("steps=0: expected at least 1"),
    errors.MissingPackage("install it"),
    errors.NotFinite("the loss is not finite"),
    workers.WorkerDied("a worker ended"),
    stage_records.StageMismatch("other settings"),
    generate.TooFewAccepted("too few"),
    curves.TooFewPairs("too few"),
    FileNotFoundError("no such file"),
    PermissionError(errno.EACCES, "Permission denied", "runs"),
    OSError(errno.ENOSPC, "No space left on device"),
  ],
  ids=lambda error: type(error).__name__,
)
def test_what_users_can_mend_is_one_line(error):
  shown = commands.explain(error)
  assert shown == f"error: {error}" and "\n" not in shown
  if isinstance(error, errors.UserError):
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # Worker processes pickle errors.


@pytest.mark.parametrize(
  "kind", [ValueError, ImportError, FloatingPointError, RuntimeError, TypeError, KeyError]
)
def test_pythons_own_errors_keep_their_traceback(kind):
  def of_the_user():
    raise kind("a bug")

  shown = commands.explain(raised(of_the_user))
  assert shown.startswith("Traceback") and "of_the_user" in shown and "a bug" in shown


def test_errors_of_this_package_are_still_those_of_python():
  with pytest.raises(ValueError, match=r"expected package\.module:function"):
    generators.resolve("nowhere_at_all:make")
  assert issubclass(errors.MissingPackage, ImportError)
  assert issubclass(errors.NotFinite, FloatingPointError)


def test_a_module_that_fails_by_itself_is_a_bug_of_it(tmp_path, monkeypatch):
  (tmp_path / "failing_gan.py").write_text("import math\nmath.no_such_thing\n")
  monkeypatch.syspath_prepend(tmp_path)
  error = raised(generators.resolve, "failing_gan:make")
  assert type(error) is AttributeError and "no_such_thing" in commands.explain(error)


COMMANDS = {
  "unseg_jax.main": ["--config=configs/dcgan_faces.py"],
  "unseg_jax.predict": ["--input=photos"],
  "unseg_jax.report": ["run"],
  "unseg_jax.export": ["--output=segmenter.onnx"],
  "unseg_jax.demo": [],
  "checkpoints_convert.convert": ["--output=made.safetensors"],
}

# Runs each command in a child process, in which its first call fails.
FAIL_EACH = """
import json, os, runpy, sys
from unseg_jax import errors, pipeline
from unseg_jax.runtime import commands, parallel, process_flags
kinds = {"mend": errors.InvalidValue, "bug": ValueError, "stop": KeyboardInterrupt}
for number, (command, arguments, kind) in enumerate(json.loads(sys.argv[1])):
  child = os.fork()
  if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    continue
  with open(f"{sys.argv[2]}/{number}.txt", "w") as file:
    os.dup2(file.fileno(), 2)
  def fail(*arguments):
    raise kinds[kind](f"to {kind}")
  parallel.check_devices = process_flags.start = fail
  sys.argv = [command, *arguments]
  runpy.run_module(command, run_name="__main__")
"""


def test_every_command_distinguishes_bugs_from_user_errors(tmp_path):
  kinds = [("mend", []), ("bug", []), ("mend", ["--debug"]), ("stop", [])]
  cases = [(name, given + more, kind) for name, given in COMMANDS.items() for kind, more in kinds]
  done = run_command("-c", FAIL_EACH, json.dumps(cases), tmp_path)
  statuses = list(map(int, done.stdout.split()))
  assert len(statuses) == len(cases)
  for number, ((name, arguments, kind), status) in enumerate(zip(cases, statuses, strict=True)):
    shown = (tmp_path / f"{number}.txt").read_text()
    assert status == (commands.INTERRUPTED if kind == "stop" else 1), (name, shown)
    if kind == "bug":
      assert shown.startswith("Traceback") and "ValueError: to bug" in shown, (name, shown)
      assert "--debug shows them" in shown and "absl" not in shown
    elif "--debug" in arguments:
      assert shown.startswith("Traceback") and "InvalidValue: to mend" in shown, (name, shown)
    else:
      assert shown == {"mend": "error: to mend\n", "stop": "interrupted\n"}[kind], name


def test_more_words_than_a_command_takes_are_one_line(tmp_path):
  done = run_module("unseg_jax.main", tmp_path, "--config=configs/dcgan_faces.py", "more")
  assert done.returncode == 1 and done.stderr == "error: unexpected arguments: more\n"
