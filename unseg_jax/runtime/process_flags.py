"""Flags of commands that may run as several processes and start worker processes."""

from absl import flags

# TPU pods, SLURM and Open MPI do not need these three.
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0.")
_PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes.", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process", None, "Number of this process, from 0.", lower_bound=0)
WORKERS = flags.DEFINE_integer(
  "workers",
  None,
  "Processes that read, encode and decode pictures or pairs; 0 for threads of this process. If "
  "unset, as many as the machine has processors to spare; for a run, none where JAX computes on "
  "the processors.",
  lower_bound=0,
)


def start() -> None:
  """Joins the other processes, if any; see `parallel.start`."""
  # Imported here so that --help and flag errors respond quickly.
  from unseg_jax.runtime import parallel

  parallel.start(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
