"""Runs an experiment: `python -m unseg_jax.main --config=configs/dcgan_faces.py`."""

import logging
import sys
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from unseg_jax import workdir

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where results go; runs/<config name> if unset.")
_STAGES = flags.DEFINE_list(
  "stages", None, "Which of search,generate,train,evaluate,report to run; all if unset."
)


def main(argv: list[str]) -> None:
  """Runs the stages that the flags choose; a user's error is one message and exit status 1."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
  # Imported here so that --help and a misspelt flag answer at once.
  from unseg_jax import pipeline, synthesis

  config = _CONFIG.value
  directory = Path(_WORKDIR.value or Path("runs") / config.name)
  try:
    pipeline.run(config, directory, pipeline.STAGES if _STAGES.value is None else _STAGES.value)
  except (
    ValueError,
    OSError,
    ImportError,
    FloatingPointError,
    workdir.StageMismatch,
    synthesis.TooFewAccepted,
  ) as error:
    sys.exit(f"error: {error}")


if __name__ == "__main__":
  flags.mark_flag_as_required("config")
  # The libraries' own chatter stays out of the way; this package's few lines are shown.
  absl_logging.set_verbosity(absl_logging.ERROR)
  logging.getLogger("unseg_jax").setLevel(logging.INFO)
  app.run(main)
