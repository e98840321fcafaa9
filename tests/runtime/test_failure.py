"""The failure of one process ends all others, quickly and with its message."""

import pathlib
import re
import shutil
import signal
import time

import pytest
from whole_runs import finish, of_processes, start_main, start_python

from unseg_jax import pipeline

pytestmark = pytest.mark.usefixtures("compile_quickly")
SECONDS = 15

# Fails in one process: after progress of a bar, or at the start of a stage without one.
FAIL = """
import os, pathlib, signal, time
import jax
from unseg_jax import errors, stages
from unseg_jax.runtime import progress
from unseg_jax.synthesis import generate

def fail():
  if jax.process_index() == VICTIM:
    pathlib.Path(MARK).write_text(str(time.time()))
    if KIND == "killed":
      os.kill(os.getpid(), signal.SIGKILL)
    raise {
      "full disk": OSError(28, "No space left on device", "somewhere"),
      "not finite": errors.NotFinite("the loss is not finite at step 4"),
      "too few": generate.TooFewAccepted("the filters reject almost everything"),
      "mistake": KeyError("nowhere"),
    }[KIND]

bar = progress.bar
def watched(description, *arguments, **options):
  made = bar(description, *arguments, **options)
  update = made.update
  def failing(n=1):
    if description.startswith(PLACE):
      fail()
    return update(n)
  made.update = failing
  return made
progress.bar = watched

if PLACE in ("evaluate", "report"):
  run_stage = stages.STAGES[PLACE]
  def failing_stage(*arguments):
    fail()
    run_stage(*arguments)
  stages.STAGES[PLACE] = failing_stage
"""
PREDICT = """
import runpy, sys
sys.argv = ["predict", *sys.argv[1:]]
runpy.run_module("unseg_jax.predict", run_name="__main__", alter_sys=True)
"""
# The message of the others for each kind of failure.
REASONS = {
  "full disk": r"No space left on device",
  "not finite": r"the loss is not finite at step 4",
  "too few": r"the filters reject almost everything",
  "mistake": r"KeyError: 'nowhere'",
  "killed": r"it was killed, or its machine is unreachable",
}
OF_PREDICT = ("full disk", "mistake", "killed")
PLACES = {"label": "adapt"}  # Progress bars that are not named after their stage.
PICTURES = pathlib.Path(__file__).parents[2] / "unseg_jax/pretrained/example"


@pytest.fixture
def run_and_fail(generator, finished, tmp_path):
  """Runs several processes, one of which fails; returns the others and their duration."""

  def run(place, kind, count, victim):
    mark = tmp_path / "failed at"
    before = f"PLACE, KIND, VICTIM, MARK = {place!r}, {kind!r}, {victim}, {str(mark)!r}{FAIL}"
    if place == "predict":
      flags = [f"--input={PICTURES}", f"--output={tmp_path / 'out'}", "--workers=0"]
      started = [start_python(before + PREDICT, *flags, **each) for each in of_processes(count)]
    else:
      stage, workdir = PLACES.get(place, place), tmp_path / "run"
      for name in list(pipeline.STAGES)[: list(pipeline.STAGES).index(stage)]:
        if (finished / name).exists():
          shutil.copytree(finished / name, workdir / name)
      flags = [f"--config.generator={generator}", f"--workdir={workdir}"]
      if stage == "adapt":
        flags += [f"--config.adapt.images={PICTURES}", "--config.adapt.confidence=0.0"]
      started = [start_main(*flags, before=before, **each) for each in of_processes(count)]
    ended = []
    for process in [*started[:victim], *started[victim + 1 :], started[victim]]:
      done = finish(process)
      ended.append((done, time.time()))
    assert mark.exists(), ended
    *others, (failed, _) = ended
    return failed, [(done, at - float(mark.read_text())) for done, at in others]

  return run


def assert_all_end(run, place, kind, count=2, victim=1):
  failed, others = run(place, kind, count, victim)
  assert failed.returncode == (-signal.SIGKILL if kind == "killed" else 1), failed.stderr
  if kind != "killed":
    said = failed.stderr if kind == "mistake" else failed.stderr.splitlines()[-1]
    assert re.search(REASONS[kind], said), failed.stderr
    assert ("Traceback" in failed.stderr) == (kind == "mistake"), failed.stderr
  for done, seconds in others:
    print(f"{place}, {kind}, {victim} of {count}: {seconds:.1f} s: {done.stderr[-3000:]}")
    assert seconds < SECONDS
    assert done.returncode not in (0, None)
    message = done.stderr.strip().splitlines()[-1]
    if kind == "killed":  # JAX ends the process if no collective operation failed.
      assert re.search(f"of {count} was stopped, because|{REASONS[kind]}", message), done.stderr
    else:
      assert re.fullmatch(f"error in process {victim} of {count}: .*{REASONS[kind]}.*", message)
      assert "Traceback" not in done.stderr and "coordination" not in done.stderr, done.stderr


@pytest.mark.parametrize(
  "place, kind, victim",
  [("generate", "full disk", 1), ("search", "killed", 1), ("predict", "mistake", 0)],
)
def test_two_processes_end_together(run_and_fail, place, kind, victim):
  assert_all_end(run_and_fail, place, kind, victim=victim)


def kinds(places):
  """Lists all kinds of failure in these places; a prediction has no losses and no filters."""
  return [
    (*place, kind)
    for place in places
    for kind in (OF_PREDICT if place[0] == "predict" else REASONS)
  ]


STAGES = [
  *(("search", 1), ("generate", 1), ("train", 1), ("label", 1), ("evaluate", 1)),
  *(("report", 0), ("predict", 1)),
]


@pytest.mark.slow
@pytest.mark.parametrize("place, victim, kind", kinds(STAGES))
def test_in_every_stage(run_and_fail, place, victim, kind):
  assert_all_end(run_and_fail, place, kind, victim=victim)


@pytest.mark.slow
@pytest.mark.parametrize(
  "place, victim, kind", kinds([("generate", 3), ("train", 0), ("predict", 1)])
)
def test_four_processes_end_together(run_and_fail, place, victim, kind):
  assert_all_end(run_and_fail, place, kind, count=4, victim=victim)
