"""A barrier at which all processes of a run wait for each other."""

from jax.experimental import multihost_utils

from unseg_jax.runtime import parallel
from unseg_jax.storage import places


def barrier(name: str) -> None:
  """Waits until every process has called this. Files they wrote before can then be read here.

  Args:
    name: the barrier's name, the same in every process.
  """
  if parallel.process_count() > 1:
    multihost_utils.sync_global_devices(name)
    places.pull()
