"""TensorFlow, an optional package, for the few tasks that need it: on the processor only."""

import importlib
import importlib.util
import os
import types

from unseg_jax.errors import MissingPackage


def check_installed(purpose: str) -> None:
  """Raises an ImportError, with the way out, if TensorFlow is not installed.

  Args:
    purpose: what needs it, as the subject of the message, such as "the format tflite".
  """
  if importlib.util.find_spec("tensorflow") is None:
    raise MissingPackage(
      f"{purpose} needs TensorFlow, which is not installed; install it with: "
      "pip install 'unseg-jax[tensorflow]'"
    )


def import_tensorflow(purpose: str) -> types.ModuleType:
  """Imports TensorFlow, which takes seconds, and keeps it from taking accelerators' memory.

  Args:
    purpose: as for `check_installed`.

  Raises:
    ImportError: TensorFlow is not installed.
  """
  check_installed(purpose)
  # It would otherwise log how it computes.
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
  tensorflow = importlib.import_module("tensorflow")
  for kind in ("GPU", "TPU"):
    tensorflow.config.set_visible_devices([], kind)
  return tensorflow
