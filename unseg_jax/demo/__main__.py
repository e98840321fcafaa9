r"""Serves a page to try segmenters on, and to see how the method finds one.

    python -m unseg_jax.demo
    python -m unseg_jax.demo --runs=runs --port=7860

The page has three tabs: your picture and what a segmenter makes of it; the direction of a run, with
a slider for the shift; and how the search found it. Segmenters are the one that ships, and the runs
and the segmenters' files in `--runs`.

Only this machine can open the page, unless `--host` says otherwise. It asks no other host for
anything. Uploads are limited in size, are deleted after some minutes, and with the server at the
latest.

The exit status is 1 if the page cannot be served, and stderr says why.
"""

import signal
import sys
from collections.abc import Sequence

from absl import flags
from absl import logging as absl_logging

from unseg_jax.demo import memory, server
from unseg_jax.runtime import commands, parallel, preemption


def main(argv: Sequence[str]) -> int:
  """Serves the page that the flags describe until it is interrupted; returns the exit status."""
  given = flags.FLAGS
  try:
    commands.check_no_arguments(argv)
    parallel.check_devices()
    # Otherwise a SIGTERM, as machines send it before they stop, would leave the uploads behind.
    for number in preemption.SIGNALS:
      if signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    memory.let_large_blocks_go()
    parallel.keep_compiled()
    with server.serve(given.runs, given.host, given.port) as page:
      print(server.describe(given.host, given.port), flush=True)
      page.block_thread()
  except Exception as error:
    print(commands.explain(error), file=sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  # The libraries' own chatter stays out of the way.
  absl_logging.set_verbosity(absl_logging.ERROR)
  # Defined here, as other commands have flags of the same names.
  flags.DEFINE_string("runs", "runs", "Folder of runs and segmenter files to choose from.")
  flags.DEFINE_string(
    "host", "127.0.0.1", "Address to listen on. 127.0.0.1: only this machine can connect."
  )
  flags.DEFINE_integer("port", 7860, "Port to listen on.", 1, 65535)
  commands.run(main)
