"""Runs an experiment: `python -m unseg_jax.main --config=configs/dcgan_faces.py`.

A config is a file; without a checkout, `configs/NAME.py` is the package's own. The `config.json` of
a workdir is that run's.
"""

import logging
import sys
from pathlib import Path

from absl import flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from unseg_jax import config_files
from unseg_jax.runtime import commands, process_flags
from unseg_jax.storage import places

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment.", lock_config=True)
flags.FLAGS["config"].parser = config_files.Parser("config")
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Where results go, a folder or a URL; runs/<config name> if unset."
)
_STAGES = flags.DEFINE_list(
  "stages", None, "Which of search,generate,train,adapt,evaluate,report to run; all if unset."
)
_REPAIR = flags.DEFINE_bool(
  "repair", False, "Look for damaged shards of the data set, and make exactly these anew."
)


_PLAN = flags.DEFINE_flag(
  flags.EnumFlag(
    "plan",
    "false",
    "Print what would run and what is missing, and write nothing; --plan=compiled also compiles "
    "the programs, for all the memory of a device that they take.",
    ["true", "false", "compiled"],
  )
)
flags.FLAGS["plan"].boolean = True  # It may be given without a value.


def command(argv: list[str]) -> None:
  """Runs `main`; what ends one of several processes ends all of them."""
  from unseg_jax.runtime import failure
  from unseg_jax.storage import locks

  with failure.shared(locks.release):
    main(argv)


def main(argv: list[str]) -> None:
  """Runs the stages that the flags choose; a user's error is one message and exit status 1."""
  commands.check_no_arguments(argv)
  # Imported here so that --help and a misspelt flag answer at once.
  from unseg_jax import pipeline
  from unseg_jax.runtime import parallel, preemption, workers
  from unseg_jax.stages import STAGES

  config = _CONFIG.value
  directory = _WORKDIR.value or Path("runs") / config.name
  stages = list(STAGES) if _STAGES.value is None else _STAGES.value
  try:
    process_flags.start()
    if _PLAN.value != "false":
      sys.exit(_print_plan(config, directory, stages))
    parallel.keep_compiled()
    if not parallel.is_primary():
      logging.getLogger("unseg_jax").setLevel(logging.WARNING)
    worker_count = process_flags.WORKERS.value
    if worker_count is None:
      worker_count = workers.spare_processors(not parallel.on_accelerator())
    with preemption.watch():
      pipeline.run(config, directory, stages, _REPAIR.value, worker_count)
  except preemption.Preempted as stop:
    print(places.in_urls(str(stop)), file=sys.stderr)
    sys.exit(preemption.EXIT_STATUS)
  except Exception as error:
    sys.exit(commands.explain(error))


def _print_plan(config: ConfigDict, directory: str | Path, stages: list[str]) -> int:
  """Prints what would run; returns 1 if something is missing for it, else 0."""
  from unseg_jax import plan
  from unseg_jax.runtime import parallel

  planned = plan.make(config, directory, stages, _PLAN.value == "compiled")
  if parallel.is_primary():
    print(places.in_urls(str(planned)))
  return 1 if planned.problems else 0


if __name__ == "__main__":
  flags.mark_flag_as_required("config")
  # The libraries' own chatter stays out of the way; this package's few lines are shown.
  absl_logging.set_verbosity(absl_logging.ERROR)
  logging.getLogger("unseg_jax").setLevel(logging.INFO)
  commands.run(command)
