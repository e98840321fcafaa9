r"""Serves a web page to try segmenters, and to see how the method trains one.

    python -m unseg_jax.demo
    python -m unseg_jax.demo --runs=runs --port=7860

The page has three tabs. "Your image" segments an image. "The direction" moves latents along the
direction of a run; a slider sets the shift. "How it was found" shows the search for it.
The page offers the shipped segmenter, and the runs and segmenter files in `--runs`.

Only this machine can open the page, unless `--host` is set. The page loads nothing from other
hosts. Uploads are limited in size and deleted after ten minutes, or when the server stops.

The exit status is 1 if the page cannot be served; stderr explains why.
"""

import signal
import sys
from collections.abc import Sequence

from absl import flags
from absl import logging as absl_logging

from unseg_jax.demo import memory, server
from unseg_jax.runtime import commands, parallel, preemption


def main(argv: Sequence[str]) -> int:
  """Serves the page until it is interrupted; returns the exit status."""
  given = flags.FLAGS
  try:
    commands.check_no_arguments(argv)
    parallel.check_devices()
    # Without a handler, SIGTERM would end the process before the uploads are deleted.
    for number in preemption.SIGNALS:
      if signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    memory.return_large_blocks()
    parallel.keep_compiled()
    with server.serve(given.runs, given.host, given.port) as page:
      print(server.describe(given.host, given.port), flush=True)
      page.block_thread()
  except Exception as error:
    print(commands.explain(error), file=sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  # Keep messages of libraries off the terminal.
  absl_logging.set_verbosity(absl_logging.ERROR)
  # Defined here, because other commands have flags of the same names.
  flags.DEFINE_string("runs", "runs", "Folder of runs and segmenter files to choose from.")
  flags.DEFINE_string(
    "host", "127.0.0.1", "Address to listen on. 127.0.0.1: only this machine can connect."
  )
  flags.DEFINE_integer("port", 7860, "Port to listen on.", 1, 65535)
  commands.run(main)
