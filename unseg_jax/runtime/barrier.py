"""Where all processes of a run wait for each other."""

from jax.experimental import multihost_utils

from unseg_jax.runtime import parallel
from unseg_jax.storage import places


def barrier(name: str) -> None:
  """Waits until every process is here; what the others wrote before is then on disk.

  Args:
    name: the point in the program; every process names the same.
  """
  if parallel.process_count() > 1:
    multihost_utils.sync_global_devices(name)
    places.pull()
