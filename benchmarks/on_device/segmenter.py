"""Measures segmenters on pictures in memory: their rate, and transfers to the device per call."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from on_device import programs, rates
from on_device.rows import Report, require
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.segmentation.unet import Unet

SHIPPED = "pretrained:faces"
BATCHES, SMALL_BATCHES = (1, 8, 64, 256), (1, 2)
GUARDS = {
  "to the device": jax.transfer_guard_host_to_device,
  "to the host": jax.transfer_guard_device_to_host,
}


def run(report: Report, smoke: bool) -> None:
  """Writes the rows of both segmenters."""
  makers = {"the shipped one": shipped, "paper's width": of_the_papers_width}
  for name, make in makers.items():
    segmenter = report.attempt(name, make, smoke)
    if segmenter is None:
      continue
    for batch in SMALL_BATCHES if smoke else BATCHES:
      what = f"{name}, {batch} pictures of {segmenter.image_size} px"
      report.attempt(what, measure_rate, report, what, segmenter, batch, smoke)
    report.attempt(f"{name}, bytes", measure_bytes, report, name, segmenter)
    for direction in GUARDS:
      what = f"{name}: implicit transfer {direction}"
      report.attempt(what, look_for_transfer, report, what, segmenter, direction)


def shipped(smoke: bool) -> Segmenter:
  """Returns the shipped face segmenter, also for `smoke`."""
  require("safetensors")
  return Segmenter.restore(SHIPPED)


def of_the_papers_width(smoke: bool) -> Segmenter:
  """Returns a segmenter of the paper's width with random weights."""
  config = programs.train_config("float32", 1, smoke)
  features, size = tuple(config.features), config.image_size
  images = np.zeros((1, size, size, 3), np.float32)
  variables = jax.device_get(jax.jit(Unet(features).init)(jax.random.key(0), images))
  return Segmenter.create(variables, features, size)


def pictures(segmenter: Segmenter, count: int) -> list[np.ndarray]:
  """Returns square pictures of noise, uint8, of the network's size."""
  shape = (count, segmenter.image_size, segmenter.image_size, 3)
  return list(np.random.default_rng(0).integers(0, 256, shape, np.uint8))


def measure_rate(report: Report, what: str, segmenter: Segmenter, batch: int, smoke: bool) -> None:
  """Measures pictures per second, from host memory to logits in host memory."""
  images = pictures(segmenter, batch)
  seconds, _ = rates.seconds_of(lambda: segmenter.small_logits(images), smoke)
  report.add(what, batch / seconds, "pictures/s")


def measure_bytes(report: Report, name: str, segmenter: Segmenter) -> None:
  """Measures the bytes that a second call with the same weights transfers to the device."""
  calls: list[Sequence[Any]] = []

  def logits(*arguments):
    calls.append(jax.tree.leaves(arguments))
    return segmenter.logits(*arguments)

  watched = dataclasses.replace(segmenter, logits=logits)
  images = pictures(segmenter, 1)
  for _ in range(2):
    watched.small_logits(images)
  before = {id(leaf) for leaf in calls[0] if isinstance(leaf, jax.Array)}
  sent = sum(leaf.nbytes for leaf in calls[1] if id(leaf) not in before)
  weights = sum(leaf.nbytes for leaf in jax.tree.leaves(segmenter.variables))
  note = f"for a picture of {images[0].nbytes} bytes; the weights are {weights} bytes"
  report.add(f"{name}: sent to the device a call", sent, "bytes", note)


def look_for_transfer(report: Report, what: str, segmenter: Segmenter, direction: str) -> None:
  """Reports whether a call makes implicit transfers."""
  images = pictures(segmenter, 1)
  segmenter.small_logits(images)
  try:
    with GUARDS[direction]("disallow"):
      segmenter.small_logits(images)
  except Exception as error:
    if "transfer" not in str(error):
      raise
    report.add(what, "yes", "", str(error).strip().splitlines()[0])
  else:
    report.add(what, "no", "", f"jax.transfer_guard on {jax.default_backend()}")
