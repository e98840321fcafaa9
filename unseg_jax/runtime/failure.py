"""Ends all processes of a run when one fails, so that the others do not wait for it forever.

A failing process publishes its message in JAX's coordination service, which every process polls
once a second. A killed process publishes nothing. The others then notice that a collective
operation fails, or JAX notices the missing heartbeat and ends them.
"""

import atexit
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax

# JAX has no public interface to its key-value store; orbax uses this one, too.
from jax._src import distributed

POLL_SECONDS = 1.0
# How long process 0, which hosts the messages, waits for the others to read them.
GRACE_SECONDS = 4.0
# Processes end together. This limits the wait for the slowest one.
_END_SECONDS = 3600

_FIRST, _SEEN, _ALIVE = "unseg_jax/failure/first", "unseg_jax/failure_seen", "unseg_jax/alive"
ADVICE = "Restart all processes with the same command: they continue from the files on disk."
KILLED = f"it was killed, or its machine is unreachable. {ADVICE}"


@dataclasses.dataclass
class _Watch:
  """The state of the failure watch in one of several processes.

  Attributes:
    companion: a process that reports if this one ends abnormally.
    thread: polls for failures of other processes.
    ended: set when this process ends, to stop polling.
    leaving: locked by the thread that ends this process.
  """

  companion: subprocess.Popen
  thread: threading.Thread
  ended: threading.Event
  leaving: threading.Lock


_watches: list[_Watch] = []  # At most one.
_releases: list[Callable[[], None]] = []


def watch() -> None:
  """Starts polling for failures of other processes, if the run has any."""
  if _process_count() == 1 or _watches:
    return
  thread = threading.Thread(target=_look, name="failures of others", daemon=True)
  _watches.append(_Watch(_start_companion(), thread, threading.Event(), threading.Lock()))
  atexit.register(_end)
  thread.start()


@contextlib.contextmanager
def shared(release: Callable[[], None] = lambda: None) -> Iterator[None]:
  """Ends all processes, with one message, if an exception leaves the context.

  The process that fails first prints its error as usual. The others print its message on one line.
  All exit with a nonzero status. `SystemExit` with a number is not a failure. Without an exception,
  the processes wait for each other at the end of the context. A run of one process is unaffected.

  Args:
    release: called before this process exits at once because of a failure.
  """
  _releases[:] = [release]
  try:
    yield
    if _watches:
      _client().wait_at_barrier("unseg_jax/end", _END_SECONDS * 1000)
  except BaseException as error:
    if _process_count() > 1 and not (isinstance(error, SystemExit) and _is_status(error.code)):
      _fail(error)
    raise


def leave_at_once(status: int) -> NoReturn:
  """Ends this process without waiting for the others, as an ordinary exit would."""
  sys.stdout.flush()
  sys.stderr.flush()
  for release in _releases:
    release()
  for own in _watches:
    with contextlib.suppress(OSError, ValueError):
      own.companion.communicate(b"goodbye")
  os._exit(status)


def _is_status(code: Any) -> bool:
  return code is None or isinstance(code, int)


def _process_count() -> int:
  # JAX's public functions start the devices first, and may wait for other processes.
  return distributed.global_state.num_processes if jax.distributed.is_initialized() else 1


def _process_index() -> int:
  return distributed.global_state.process_id


def _client() -> Any:
  return distributed.global_state.client


def _start_companion() -> subprocess.Popen:
  """Starts a small process that reports if this one ends abnormally.

  When another process dies, JAX's C++ code ends this one, which Python cannot intercept.
  """
  code = (
    "import signal, sys\n"
    "for name in ('SIGTERM', 'SIGINT', 'SIGHUP'):\n"
    "  signal.signal(getattr(signal, name), signal.SIG_IGN)\n"
    "if not sys.stdin.buffer.read(): print(sys.argv[1], file=sys.stderr, flush=True)"
  )
  message = (
    f"error: process {_process_index()} of {_process_count()} was stopped, because another process "
    f"or this one was killed. {ADVICE}"
  )
  return subprocess.Popen([sys.executable, "-c", code, message], stdin=subprocess.PIPE)


def _end() -> None:
  for own in _watches:
    own.ended.set()
    own.thread.join()
    own.companion.communicate(b"goodbye")
  _watches.clear()


def _look() -> None:
  """Ends this process when another one publishes a failure."""
  (own,) = _watches
  for beat in range(sys.maxsize):
    try:
      _client().key_value_set(f"{_ALIVE}/{_process_index()}", str(beat), allow_overwrite=True)
      failure = _first_failure()
    except jax.errors.JaxRuntimeError:
      # Process 0 hosts the messages; its connections close when it ends.
      failure = {"process": 0, "message": KILLED}
      if own.ended.wait(POLL_SECONDS):
        return
    if failure and failure["process"] != _process_index():
      own.leaving.acquire()
      _leave_with(failure)
    if own.ended.wait(POLL_SECONDS):
      return


def _first_failure() -> dict[str, Any] | None:
  found = _client().key_value_dir_get(_FIRST.rpartition("/")[0])
  return json.loads(found[0][1]) if found else None


def _fail(error: BaseException) -> None:
  """Ends all processes after an error of this one, which another one may have caused."""
  message = _message(error)
  if _is_of_connection(error) and (silent := _silent_processes()):
    failure = {"process": silent[0], "message": KILLED}
  else:
    failure = {"process": _process_index(), "message": message}
  for own in _watches:
    own.leaving.acquire()  # If the polling thread has the lock, it ends this process.
  first = _publish(failure)
  if first["process"] != _process_index():
    _leave_with(first)
  if isinstance(error, SystemExit):
    print(error.code, file=sys.stderr)
  else:
    sys.excepthook(type(error), error, error.__traceback__)
  _acknowledge()
  leave_at_once(1)


def _message(error: BaseException) -> str:
  """Returns the first line of an error's message."""
  if isinstance(error, SystemExit) and str(error.code).startswith("error: "):
    text = str(error.code).removeprefix("error: ")
  else:  # The context of a command's SystemExit is the error that it reports.
    cause = (isinstance(error, SystemExit) and error.__context__) or error
    text = f"{type(cause).__name__}: {cause}"
  return text.strip().partition("\n")[0]


def _is_of_connection(error: BaseException) -> bool:
  """Whether the end of another process may be the cause: a collective operation failed."""
  return isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)


def _silent_processes() -> list[int]:
  """Returns the processes without a recent sign of life. It may end this process instead."""
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    before = _beats()
    time.sleep(2.5 * POLL_SECONDS)
    after = _beats()
    return [
      number
      for number in range(_process_count())
      if before.get(number) == after.get(number) and number != _process_index()
    ]
  return [0]  # Process 0 hosts the signs of life and does not respond.


def _beats() -> dict[int, str]:
  found = _client().key_value_dir_get(_ALIVE)
  return {int(key.rpartition("/")[2]): beat for key, beat in found}


def _publish(failure: dict[str, Any]) -> dict[str, Any]:
  """Publishes a failure unless one is published already; returns the first one."""
  try:
    _client().key_value_set(_FIRST, json.dumps(failure))
  except jax.errors.JaxRuntimeError:
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      return _first_failure() or failure
  return failure


def _leave_with(failure: dict[str, Any]) -> NoReturn:
  """Ends this process with another one's message."""
  place = f"process {failure['process']} of {_process_count()}"
  tqdm: Any = sys.modules.get("tqdm")
  newline = "\n" if tqdm and tqdm.tqdm._instances else ""  # After an open progress bar.
  print(f"{newline}error in {place}: {failure['message']}", file=sys.stderr, flush=True)
  _acknowledge()
  leave_at_once(1)


def _acknowledge() -> None:
  """Confirms that this process has read the message; process 0 waits until all have."""
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    client, deadline = _client(), time.monotonic() + GRACE_SECONDS
    client.key_value_set(f"{_SEEN}/{_process_index()}", "seen", allow_overwrite=True)
    while _process_index() == 0 and time.monotonic() < deadline:
      if len(client.key_value_dir_get(_SEEN)) == _process_count():
        return
      time.sleep(0.05)
