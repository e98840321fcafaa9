"""Ctrl-C, SIGTERM and a closed terminal let a run save and exit; a second Ctrl-C ends it."""

import os
import signal
import subprocess
import sys
import time

import pytest
from whole_runs import ROOT

from unseg_jax.runtime import preemption

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.mark.parametrize("number", preemption.SIGNALS, ids=lambda number: number.name)
def test_is_noted_once_and_named(number):
  before = signal.getsignal(number)
  with preemption.watch():
    assert not preemption.requested()
    os.kill(os.getpid(), number)
    assert preemption.requested() and preemption.leaving_alone()
    with pytest.raises(preemption.Preempted) as caught:
      preemption.leave("all of it is saved")
  assert signal.getsignal(number) == before
  message = str(caught.value)
  assert message.startswith(f"stopped ({number.name}): all of it is saved. Run the same")
  assert "\n" not in message
  with preemption.watch():
    assert not preemption.requested()


def test_what_is_ignored_from_the_start_stays_ignored():
  """As under `nohup` for SIGHUP, or for SIGINT in background processes of a script."""
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    with preemption.watch():
      os.kill(os.getpid(), signal.SIGHUP)
      assert not preemption.requested()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
  finally:
    signal.signal(signal.SIGHUP, before)


# Works until a signal stops it, and then keeps writing as progress bars do.
WATCHING = """
import sys, time
from unseg_jax.runtime import preemption
try:
  with preemption.watch():
    print("ready", flush=True)
    while not preemption.requested():
      time.sleep(0.01)
    for _ in range(int(sys.argv[1])):
      time.sleep(0.05)
      print("saving", file=sys.stderr, flush=True)
    preemption.leave("saved")
except preemption.Preempted as stop:
  print(stop, file=sys.stderr, flush=True)
  sys.exit(preemption.EXIT_STATUS)
"""


def start(saving, **options):
  return subprocess.Popen([sys.executable, "-c", WATCHING, str(saving)], cwd=ROOT, **options)


def test_a_second_ctrl_c_ends_at_once():
  process = start(1200, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  assert process.stdout.readline() == "ready\n"
  process.send_signal(signal.SIGINT)
  assert process.stderr.readline() == "saving\n"
  process.send_signal(signal.SIGINT)
  began = time.monotonic()
  _, errors = process.communicate(timeout=30)
  assert process.returncode == -signal.SIGINT and "Traceback" not in errors
  assert time.monotonic() - began < 5


@pytest.mark.parametrize("how", ["lost", "Ctrl-C"])
def test_a_terminal_that_is_lost_or_sends_ctrl_c_lets_the_run_save(how):
  master, terminal = os.openpty()
  # In its own session, whose terminal this is.
  become = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
  code = f"{become}exec(sys.argv.pop(1))"
  process = subprocess.Popen(
    [sys.executable, "-c", code, WATCHING, "3"],
    cwd=ROOT,
    stdin=terminal,
    stdout=terminal,
    stderr=terminal,
    start_new_session=True,
  )
  os.close(terminal)
  shown = b""
  while b"ready" not in shown:
    shown += os.read(master, 1000)
  if how == "lost":
    os.close(master)
    assert process.wait(timeout=30) == preemption.EXIT_STATUS
    return
  os.write(master, b"\x03")
  while b"stopped (" not in shown:
    shown += os.read(master, 1000)
  assert process.wait(timeout=30) == preemption.EXIT_STATUS
  os.close(master)
  text = shown.decode().replace("\r\n", "\n")
  assert "Ctrl-C again ends at once\n" in text and "stopped (SIGINT): saved. " in text
  assert "Traceback" not in text
