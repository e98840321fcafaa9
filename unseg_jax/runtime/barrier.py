"""Where all processes of a run wait for each other."""

from jax.experimental import multihost_utils

from unseg_jax.runtime import parallel
from unseg_jax.storage import places


def barrier(name: str) -> None:
  """Waits until every process has called this; what they wrote before is then on disk.

  Args:
    name: of this point in the program, the same in every process.
  """
  if parallel.process_count() > 1:
    multihost_utils.sync_global_devices(name)
    places.pull()
