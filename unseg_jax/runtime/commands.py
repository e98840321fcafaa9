"""Start of every command: flags, error messages and the exit status.

An error that the user can fix is shown as one line. Any other error is shown with its traceback,
without the frames of libraries. `--debug` shows the full traceback of either.
"""

import re
import signal
import sys
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags

from unseg_jax.errors import UserError
from unseg_jax.storage import places

DEBUG = flags.DEFINE_bool("debug", False, "Show the full traceback of any error.")

# The exit status that shells report for a command ended by Ctrl-C.
INTERRUPTED = 128 + signal.SIGINT

_STANDARD_LIBRARY = sysconfig.get_path("stdlib")
_INSTALLED = {"site-packages", "dist-packages"}
_OURS = str(Path(__file__).parents[1])
# Part of the note that JAX adds to errors whose frames it has removed.
_JAX_REMARK = "JAX has removed its internal frames"


class NotParsed(Exception):
  """The value of a flag could not be used. Unlike absl's errors, it keeps its cause's traceback."""


def run(main: Callable[[list[str]], int | None]) -> NoReturn:
  """Parses the flags of this process, runs a command and exits with its status."""

  def guarded(argv: list[str]) -> int | None:
    if DEBUG.value:
      _show_jax_frames()
    try:
      return main(argv)
    except Exception as error:
      print(explain(error), file=sys.stderr)
      return 1

  _show_all_flags()
  try:
    app.run(guarded, flags_parser=_parse)
  except KeyboardInterrupt:
    if "--debug" in sys.argv:
      raise
    print("interrupted", file=sys.stderr)
    sys.exit(INTERRUPTED)


def _show_all_flags() -> None:
  """Makes --help show the flags that this package defines outside the command's own file."""
  for module, defined in flags.FLAGS.flags_by_module_dict().items():
    if module.startswith("unseg_jax."):
      for flag in defined:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def explain(error: BaseException) -> str:
  """Returns the text to show for an error: one line, or a traceback without library frames."""
  if "--debug" in sys.argv or (flags.FLAGS.is_parsed() and DEBUG.value):
    return "".join(traceback.format_exception(error)).rstrip()
  if isinstance(error, UserError | OSError):
    return places.in_urls(f"error: {error}")
  described = traceback.TracebackException.from_exception(error)
  _shorten(described)
  return "".join(described.format()) + "(Library frames are hidden; --debug shows them.)"


def check_no_arguments(argv: Sequence[str], hint: str = "") -> None:
  """Checks that a command line has no arguments besides flags.

  Raises:
    UserError: it has.
  """
  if argv[1:]:
    raise UserError(f"unexpected arguments: {' '.join(argv[1:])}{hint}")


def _parse(argv: list[str]) -> list[str]:
  """Parses flags; reports an error in one line, unlike absl's own parser."""
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    # absl's message for a missing required flag.
    missing = re.search(r"Flag --(\w+) must have a value other than None", str(error))
    text = f"--{missing[1]} is missing" if missing else " ".join(str(error).split())
    print(f"error: {text.rstrip('.')}. --help lists the flags.", file=sys.stderr)
  except NotParsed as error:
    print(explain(error.__cause__ or error), file=sys.stderr)
  sys.exit(1)


def _show_jax_frames() -> None:
  # Imported here so that --help and flag errors respond quickly.
  import jax

  jax.config.update("jax_traceback_filtering", "off")


def _shorten(described: traceback.TracebackException) -> None:
  """Removes the frames of libraries from this error and from its causes."""
  waiting: list[Any] = [described]
  while waiting:
    each = waiting.pop()
    own = [frame for frame in each.stack if _is_of_interest(frame)]
    each.stack = traceback.StackSummary.from_list(own)
    if notes := getattr(each, "__notes__", None):
      each.__notes__ = [note for note in notes if _JAX_REMARK not in note]
    waiting += filter(None, (each.__cause__, each.__context__, *(each.exceptions or ())))


def _is_of_interest(frame: traceback.FrameSummary) -> bool:
  """Whether a frame belongs to this package or to the user's files."""
  if frame.filename.startswith(_OURS):
    return frame.filename != __file__
  installed = not _INSTALLED.isdisjoint(Path(frame.filename).parts)
  return not (
    installed
    or frame.filename.startswith(_STANDARD_LIBRARY)
    or frame.filename.startswith("<frozen ")
  )
