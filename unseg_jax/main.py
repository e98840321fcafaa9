"""Runs an experiment: `python -m unseg_jax.main --config=configs/dcgan_faces.py`.

A config is a file; without a checkout, `configs/NAME.py` is the package's own. The `config.json` of
a workdir is that run's.
"""

import importlib.util
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from unseg_jax.artifacts import stage_records
from unseg_jax.runtime import process_flags
from unseg_jax.storage import places


def find_config(path: str) -> str:
  """Returns the path of a config, which for `configs/NAME.py` may be the package's own.

  Args:
    path: as `--config` takes it, a variant after a colon included.
  """
  name, colon, variant = os.path.expanduser(path).partition(":")
  package = importlib.util.find_spec("unseg_jax.configs")
  if Path(name).exists() or Path(name).parent != Path("configs"):
    return name + colon + variant
  if package is None or package.origin is None:
    return name + colon + variant
  return str(Path(package.origin).with_name(Path(name).name)) + colon + variant


def read_recorded(path: Path) -> ConfigDict:
  """Reads the config that a run left in its workdir, `config.json`, to run it again.

  Raises:
    ValueError: the file is missing or damaged.
  """
  try:
    recorded = json.loads(path.read_text(), object_hook=_with_tuples)
  except (OSError, ValueError) as error:
    raise ValueError(
      f"--config={path} cannot be read ({error}); expected the config.json of a workdir"
    ) from error
  return ConfigDict(recorded).lock()


def _with_tuples(settings: dict[str, Any]) -> dict[str, Any]:
  def convert(value: Any) -> Any:
    return tuple(map(convert, value)) if isinstance(value, list) else value

  return {name: convert(value) for name, value in settings.items()}


class _ConfigParser(config_flags.config_flags.ConfigFileFlagParser):
  def parse(self, path):
    if path.endswith(".json"):
      return read_recorded(places.local(path))
    return super().parse(find_config(path))


_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment.", lock_config=True)
flags.FLAGS["config"].parser = _ConfigParser("config")
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Where results go, a folder or a URL; runs/<config name> if unset."
)
_STAGES = flags.DEFINE_list(
  "stages", None, "Which of search,generate,train,adapt,evaluate,report to run; all if unset."
)
_REPAIR = flags.DEFINE_bool(
  "repair", False, "Look for damaged shards of the data set, and make exactly these anew."
)
_WORKERS = flags.DEFINE_integer(
  "workers",
  None,
  "Processes that encode and decode pairs; 0 for threads of this process. If unset, as many as the "
  "machine has processors to spare; none where JAX computes on the processors.",
  lower_bound=0,
)


def main(argv: list[str]) -> None:
  """Runs the stages that the flags choose; a user's error is one message and exit status 1."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
  # Imported here so that --help and a misspelt flag answer at once.
  import jax

  from unseg_jax import pipeline
  from unseg_jax.runtime import parallel, preemption, workers
  from unseg_jax.segmentation import curves
  from unseg_jax.stages import STAGES
  from unseg_jax.synthesis import generate

  config = _CONFIG.value
  directory = _WORKDIR.value or Path("runs") / config.name
  stages = list(STAGES) if _STAGES.value is None else _STAGES.value
  try:
    process_flags.start()
    parallel.keep_compiled()
    if not parallel.is_primary():
      logging.getLogger("unseg_jax").setLevel(logging.WARNING)
    worker_count = _WORKERS.value
    if worker_count is None:
      worker_count = workers.spare_processors(not parallel.on_accelerator())
    with preemption.watch():
      pipeline.run(config, directory, stages, _REPAIR.value, worker_count)
  except preemption.Preempted as stop:
    print(places.in_urls(str(stop)), file=sys.stderr)
    sys.exit(preemption.EXIT_STATUS)
  except jax.errors.JaxRuntimeError as error:
    if parallel.process_count() == 1:
      raise
    print(f"error: {error}", file=sys.stderr)
    parallel.leave_at_once(1)
  except (
    ValueError,
    OSError,
    ImportError,
    FloatingPointError,
    workers.WorkerDied,
    stage_records.StageMismatch,
    generate.TooFewAccepted,
    curves.TooFewPairs,
  ) as error:
    sys.exit(places.in_urls(f"error: {error}"))


if __name__ == "__main__":
  flags.mark_flag_as_required("config")
  # The libraries' own chatter stays out of the way; this package's few lines are shown.
  absl_logging.set_verbosity(absl_logging.ERROR)
  logging.getLogger("unseg_jax").setLevel(logging.INFO)
  # TensorFlow, which writes files here, would say how it computes.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
  app.run(main)
