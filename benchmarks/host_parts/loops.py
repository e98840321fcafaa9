"""Python's time for a step of each loop, with next to no device work.

A step of `generate` is a chunk of candidates; a step of `predict` is a batch of pictures.
"""

import contextlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import tqdm

from common import experiments
from host_parts import pairs, prediction
from unseg_jax.direction import search
from unseg_jax.generators import Generator, normal_latents
from unseg_jax.inference import batched
from unseg_jax.prediction import run
from unseg_jax.runtime import parallel, progress, workers
from unseg_jax.segmentation import train
from unseg_jax.synthesis import generate

STEPS = 2_000


def python_time(folder: Path) -> dict[str, float]:
  """Returns the seconds of a step of each loop. Device work is at most one addition."""
  return {
    "search": _search_time(folder / "search"),
    "generate": _generate_time(folder / "generate"),
    "train": _train_time(folder / "train"),
    "predict": _predict_time(),
  }


def _search_time(folder: Path) -> float:
  config = experiments.load("dcgan_faces.py").search
  config.update({"steps": STEPS, "save_every": STEPS, "dtype": "float32"})
  config.update({"batch_size": parallel.device_count()})

  def make_drawing_step(generator, config, key):
    return lambda state, *_: (
      state.replace(step=state.step + 1),
      {"loss": state.directions.sum(-1)},
      state.directions.sum(-1)[:, 0],
    )

  with mock.patch.object(search, "make_drawing_step", make_drawing_step), _Clock.patched() as clock:
    search.search(black_images(), config, jax.random.key(0), folder)
  return clock.per_step()


def _generate_time(folder: Path) -> float:
  """Keeps one small pair of each chunk, so that the loop ends."""
  images, masks = np.zeros((1, 8, 8, 8, 3), np.uint8), np.zeros((1, 8, 8, 8), bool)
  verdicts = {"all": np.arange(8)[None] == 0}
  chunk = {"image": images, "mask": masks, "label": np.zeros((1, 8), np.int32)}
  made = jax.tree.map(jax.numpy.asarray, chunk | {"verdicts": verdicts})
  with workers.executor(0) as encoders, _Clock.patched() as clock:
    split = pairs.split_of(STEPS, 8, STEPS, folder, made, encoders, generate.WAITING_CHUNKS)
    with mock.patch.object(parallel, "local_device_count", lambda: 1):
      generate._generate_split(split)
  return clock.per_step()


def _predict_time() -> float:
  view = np.zeros((64, 64, 3), np.uint8)
  views = ((number, [view]) for number in range(STEPS * run.BATCH_SIZE))
  start = time.perf_counter()
  for _ in batched.logits(prediction.without_network(), views, run.BATCH_SIZE):
    pass
  return (time.perf_counter() - start) / STEPS


def _train_time(folder: Path) -> float:
  config = experiments.load("dcgan_faces.py").train
  config.update({"steps": STEPS, "checkpoint_every": STEPS})
  config.update({"features": (2, 2), "dtype": "float32"})
  batches_of_nothing = itertools.repeat(
    {"position": parallel.shard(np.arange(parallel.device_count()))}
  )

  def make_step(config, key):
    def step(state, batch):
      nothing = batch["position"].sum() * 0.0
      return state.replace(step=state.step + 1), nothing, nothing

    return step

  with mock.patch.object(train, "make_measured_step", make_step), _Clock.patched() as clock:
    train.train(
      config, lambda _: batches_of_nothing, lambda _: {"iou": 0.0}, jax.random.key(0), folder
    )
  return clock.per_step()


class _Clock(tqdm.tqdm):
  """A progress bar that records the time of every step."""

  def __init__(self):
    super().__init__(disable=True)
    self.times = []

  @classmethod
  @contextlib.contextmanager
  def patched(cls) -> Iterator["_Clock"]:
    """Replaces every progress bar."""
    clock = cls()
    with mock.patch.object(progress, "bar", lambda *_, **__: contextlib.nullcontext(clock)):
      yield clock

  def update(self, n: int = 1) -> None:
    self.times.append(time.perf_counter())
    self.n += n

  def set_postfix(self, *_: Any, **__: Any) -> None:
    pass

  def per_step(self) -> float:
    """Returns the seconds of a step, without the steps that wait for compilation."""
    counted = self.times[len(self.times) // 4 : -1]
    return (counted[-1] - counted[0]) / (len(counted) - 1)


def black_images() -> Generator:
  """Returns a generator of black images, which computes nothing."""
  return Generator(
    variables={},
    image_size=8,
    latent_shape=(4,),
    num_classes=None,
    sample_latents=normal_latents((4,)),
    generate=lambda variables, latents, labels: jax.numpy.zeros((len(latents), 8, 8, 3)),
    identity="black",
  )
