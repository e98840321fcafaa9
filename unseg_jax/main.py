"""Runs an experiment: `python -m unseg_jax.main --config=configs/dcgan_faces.py`.

`--config` is a Python file that defines `get_config()`. Outside a checkout, `configs/NAME.py` names
a config of the package. The `config.json` of a workdir repeats that run.
"""

import logging
import sys
from pathlib import Path

from absl import flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from unseg_jax import config_files
from unseg_jax.runtime import commands, huge_pages, process_flags
from unseg_jax.storage import places

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "Config file of the experiment, such as configs/dcgan_faces.py (required).",
  lock_config=True,
)
flags.FLAGS["config"].parser = config_files.Parser("config")
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder or URL for the results. Default: runs/NAME, with the name in the config."
)
_STAGES = flags.DEFINE_list(
  "stages", None, "Stages to run, of search,generate,train,adapt,evaluate,report. Default: all."
)
_REPAIR = flags.DEFINE_bool("repair", False, "Regenerate damaged shards of the data set.")
_PLAN = flags.DEFINE_flag(
  flags.EnumFlag(
    "plan",
    "false",
    "Print what would run and what is missing, without writing anything. --plan=compiled also "
    "compiles the programs, to show how much device memory they need.",
    ["true", "false", "compiled"],
  )
)
flags.FLAGS["plan"].boolean = True  # --plan alone means --plan=true.


def command(argv: list[str]) -> None:
  """Runs `main`; if it fails in one of several processes, all of them end."""
  from unseg_jax.runtime import failure
  from unseg_jax.storage import locks

  with failure.shared(locks.release):
    main(argv)


def main(argv: list[str]) -> None:
  """Runs the stages that the flags select; a user's error is one message and exit status 1."""
  commands.check_no_arguments(argv)
  # Imported here so that --help and flag errors respond quickly.
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
  """Prints the plan of a run; returns 1 if the run would be refused, else 0."""
  from unseg_jax import plan
  from unseg_jax.runtime import parallel

  planned = plan.make(config, directory, stages, _PLAN.value == "compiled")
  if parallel.is_primary():
    print(places.in_urls(str(planned)))
  return 1 if planned.problems else 0


if __name__ == "__main__":
  huge_pages.use("unseg_jax.main")
  flags.mark_flag_as_required("config")
  # Hide log messages of libraries, but show those of this package.
  absl_logging.set_verbosity(absl_logging.ERROR)
  logging.getLogger("unseg_jax").setLevel(logging.INFO)
  commands.run(command)
