"""Flags of commands that run as several processes or start worker processes."""

from absl import flags

_COORDINATOR = flags.DEFINE_string(
  "coordinator",
  None,
  "HOST:PORT of process 0. Together with --processes and --process, it starts several processes; "
  "TPU pods, SLURM and Open MPI need none of the three.",
)
_PROCESSES = flags.DEFINE_integer("processes", None, "Total number of processes.", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process", None, "Index of this process, from 0.", lower_bound=0)
WORKERS = flags.DEFINE_integer(
  "workers",
  None,
  "Number of worker processes that read, decode and encode images. 0: threads of this process. "
  "Default: the number of spare processors; 0 for a run without an accelerator.",
  lower_bound=0,
)


def start() -> None:
  """Joins the other processes, if any; see `parallel.start`."""
  # Imported here so that --help and flag errors respond quickly.
  from unseg_jax.runtime import parallel

  parallel.start(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
