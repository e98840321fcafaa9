"""Compares a training step of the U-Net on this device with one on the CPU in float32."""

from typing import Any

import jax
import ml_collections
import numpy as np

from common import cases
from on_device import programs
from on_device.rows import NotMeasured, Report
from unseg_jax import default_config
from unseg_jax.runtime import parallel
from unseg_jax.segmentation import step

BATCH, SIZE = 8, 64
FIRST_MOMENT = 0.1  # Adam's first moment after one step, as a share of the gradient.
# Bounds in float32 at `highest` only. The gradient is a sum over thousands of pixels.
BOUNDS = {"loss": 1e-4, "gradient": 1e-3, "statistics": 1e-4}


def compare(report: Report, smoke: bool) -> None:
  """Writes the differences of loss, gradient, statistics and weights from the CPU's."""
  try:
    processor = jax.devices("cpu")[0]
  except RuntimeError:
    raise NotMeasured("this JAX has no CPU to compare with") from None
  device = jax.local_devices()[0]
  config = default_config.get_config().train
  config.update({"batch_size": BATCH, "image_size": SIZE})
  if smoke:
    config.features = programs.SMALL_WIDTHS
  start = jax.device_get(step.initial_state(config, jax.random.key(5)))
  expected = take(config, start, processor, "highest")
  ways = {"": ("float32", "highest")}
  if not smoke:
    ways |= {", default precision": ("float32", None), ", bfloat16": ("bfloat16", None)}
  for label, how in ways.items():
    what = f"training step{label}"
    report.attempt(what, compare_one, report, what, config, start, expected, device, how)


def compare_one(
  report: Report,
  what: str,
  config: ml_collections.ConfigDict,
  start: step.TrainState,
  expected: tuple[Any, float],
  device: jax.Device,
  how: tuple[str, str | None],
) -> None:
  """Writes the differences for one type and precision; checks bounds at `highest` only."""
  dtype, precision = how
  config = config.copy_and_resolve_references()
  config.dtype = dtype
  (state, loss), (right, right_loss) = take(config, start, device, precision), expected
  found, wanted = gradient(state), gradient(right)
  apart = {
    "loss": abs(loss - right_loss),
    "gradient": float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted)),
    "statistics": float(np.abs(flat(state.batch_stats) - flat(right.batch_stats)).max()),
  }
  for name, value in apart.items():
    unit = "of its length" if name == "gradient" else ""
    if precision == "highest":
      report.compare(f"{what}: {name}", value, BOUNDS[name], unit)
    else:
      report.add(f"{what}: {name}", value, unit, "beside float32 on the CPU")
  weights = float(np.abs(flat(state.params) - flat(right.params)).max())
  note = f"Adam's first step moves each by {config.learning_rate:g}, whatever the gradient's size"
  report.add(f"{what}: weights", weights, "", note)


def take(
  config: ml_collections.ConfigDict,
  start: step.TrainState,
  device: jax.Device,
  precision: str | None,
) -> tuple[step.TrainState, float]:
  """Takes the first step on one device; returns the next state and the loss."""
  arguments = jax.tree.map(lambda x: np.asarray(x)[None], (start, cases.noise_pairs(config)))
  with jax.default_device(device), jax.default_matmul_precision(precision):
    update = step.make_step(config, jax.random.key(6))
    mapped = jax.pmap(update, axis_name=parallel.AXIS, devices=[device])
    state, loss = jax.device_get(mapped(*arguments))
  return jax.tree.map(lambda x: x[0], state), float(loss[0])


def gradient(state: step.TrainState) -> np.ndarray:
  """Returns the gradient of all weights, computed from Adam's first moment after one step."""
  return flat(state.opt_state[0].mu) / FIRST_MOMENT


def flat(tree: Any) -> np.ndarray:
  """Concatenates all arrays of a tree to one float64 vector."""
  return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])
