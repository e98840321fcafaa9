"""One process's failure is everybody's: the others leave with its message, instead of waiting.

A process that fails publishes its message where JAX's processes find each other, and every process
looks there each second. One that is killed publishes nothing: the others notice that a collective
operation breaks, or JAX does that its heartbeat is missing, and ends them.
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

# JAX has no public way to its key-value store; orbax takes this one, too.
from jax._src import distributed

POLL_SECONDS = 1.0
# For so long the first process, which keeps the messages, waits for the others to read them.
GRACE_SECONDS = 4.0
# Processes end together; what one of them does last may take long.
_END_SECONDS = 3600

_FIRST, _SEEN, _ALIVE = "unseg_jax/failure/first", "unseg_jax/failure_seen", "unseg_jax/alive"
ADVICE = "Start all of them again with the same command: they continue from what is on disk."
KILLED = f"it was killed, or its machine is gone. {ADVICE}"


@dataclasses.dataclass
class _Watch:
  """What a process of several keeps beside its work.

  Attributes:
    companion: reports the end of this process if that is not an ordinary one.
    thread: looks for others' failures.
    ended: this process ends, and no longer looks.
    leaving: held by the thread that ends this process.
  """

  companion: subprocess.Popen
  thread: threading.Thread
  ended: threading.Event
  leaving: threading.Lock


_watches: list[_Watch] = []  # At most one.
_releases: list[Callable[[], None]] = []


def watch() -> None:
  """Starts to look for the failures of other processes, if this one has joined any."""
  if _process_count() == 1 or _watches:
    return
  thread = threading.Thread(target=_look, name="failures of others", daemon=True)
  _watches.append(_Watch(_start_companion(), thread, threading.Event(), threading.Lock()))
  atexit.register(_end)
  thread.start()


@contextlib.contextmanager
def shared(release: Callable[[], None] = lambda: None) -> Iterator[None]:
  """Makes an exception that leaves the context the end of all processes, with one message.

  The process that fails first prints what it would print alone; the others print its message, on
  one line. All leave with a status that is not zero. `SystemExit` with a number is no failure, and
  a process without others is left as it is. Without an exception, the processes wait for each
  other.

  Args:
    release: is called before this process ends because of another one.
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
  """Ends this process although others have ended; an ordinary exit would wait for them."""
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
  # Of JAX's own functions, those that say so start the devices first, and may wait for others.
  return distributed.global_state.num_processes if jax.distributed.is_initialized() else 1


def _process_index() -> int:
  return distributed.global_state.process_id


def _client() -> Any:
  return distributed.global_state.client


def _start_companion() -> subprocess.Popen:
  """Starts a small process that reports if this one does not end in the ordinary way.

  When another process dies, JAX ends this one from within its C++ code, where nothing can catch it.
  """
  code = (
    "import signal, sys\n"
    "for name in ('SIGTERM', 'SIGINT', 'SIGHUP'):\n"
    "  signal.signal(getattr(signal, name), signal.SIG_IGN)\n"
    "if not sys.stdin.buffer.read(): print(sys.argv[1], file=sys.stderr, flush=True)"
  )
  message = (
    f"error: process {_process_index()} of {_process_count()} was stopped: when one of them ends, "
    f"so does the run. {ADVICE}"
  )
  return subprocess.Popen([sys.executable, "-c", code, message], stdin=subprocess.PIPE)


def _end() -> None:
  for own in _watches:
    own.ended.set()
    own.thread.join()
    own.companion.communicate(b"goodbye")
  _watches.clear()


def _look() -> None:
  """Ends this process when another one says that it failed."""
  (own,) = _watches
  for beat in range(sys.maxsize):
    try:
      _client().key_value_set(f"{_ALIVE}/{_process_index()}", str(beat), allow_overwrite=True)
      failure = _first_failure()
    except jax.errors.JaxRuntimeError:
      # The messages are kept by the first process, whose connections close when it ends.
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
  """Ends all processes because of an error of this one, or of another one that caused it."""
  message = _message(error)
  if _is_of_connection(error) and (silent := _silent_processes()):
    failure = {"process": silent[0], "message": KILLED}
  else:
    failure = {"process": _process_index(), "message": message}
  for own in _watches:
    own.leaving.acquire()  # The other thread, if it is faster, ends this process.
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
  """The first line of what a process says last."""
  if isinstance(error, SystemExit) and str(error.code).startswith("error: "):
    text = str(error.code).removeprefix("error: ")
  else:  # What a command shows with its traceback is behind its SystemExit.
    cause = (isinstance(error, SystemExit) and error.__context__) or error
    text = f"{type(cause).__name__}: {cause}"
  return text.strip().partition("\n")[0]


def _is_of_connection(error: BaseException) -> bool:
  """Whether another process's end may be the cause: the ways in which collectives break."""
  return isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error)


def _silent_processes() -> list[int]:
  """The processes that give no sign of life for a while; may not return, as the others' do."""
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    before = _beats()
    time.sleep(2.5 * POLL_SECONDS)
    after = _beats()
    return [
      number
      for number in range(_process_count())
      if before.get(number) == after.get(number) and number != _process_index()
    ]
  return [0]  # Which kept the signs.


def _beats() -> dict[int, str]:
  found = _client().key_value_dir_get(_ALIVE)
  return {int(key.rpartition("/")[2]): beat for key, beat in found}


def _publish(failure: dict[str, Any]) -> dict[str, Any]:
  """Publishes a failure, unless there is one; returns the first."""
  try:
    _client().key_value_set(_FIRST, json.dumps(failure))
  except jax.errors.JaxRuntimeError:
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      return _first_failure() or failure
  return failure


def _leave_with(failure: dict[str, Any]) -> NoReturn:
  """Ends this process with the message of another one."""
  place = f"process {failure['process']} of {_process_count()}"
  tqdm: Any = sys.modules.get("tqdm")
  newline = "\n" if tqdm and tqdm.tqdm._instances else ""  # After an open progress bar.
  print(f"{newline}error in {place}: {failure['message']}", file=sys.stderr, flush=True)
  _acknowledge()
  leave_at_once(1)


def _acknowledge() -> None:
  """Says that this process has the message; the first one waits until all of them have."""
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    client, deadline = _client(), time.monotonic() + GRACE_SECONDS
    client.key_value_set(f"{_SEEN}/{_process_index()}", "seen", allow_overwrite=True)
    while _process_index() == 0 and time.monotonic() < deadline:
      if len(client.key_value_dir_get(_SEEN)) == _process_count():
        return
      time.sleep(0.05)
