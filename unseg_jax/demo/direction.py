"""The second tab: generated images whose latents move along the directions of a run."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from unseg_jax import generators
from unseg_jax.array_types import Bool, Float, Num, UInt8
from unseg_jax.artifacts import stage_records
from unseg_jax.direction.losses import grey
from unseg_jax.generators import Generator, sample_at, with_dtype
from unseg_jax.images import writing
from unseg_jax.runtime import parallel
from unseg_jax.storage import whole_files
from unseg_jax.synthesis import candidates

FILTERS = ("area", "histogram", "roundness", "agreement")  # In the order of the page.
LATENTS = 6
LONGEST_SHIFT = 10.0  # Twice that of the paper.


@dataclasses.dataclass(frozen=True)
class Search:
  """A finished search with its compiled generator.

  Attributes:
    workdir: of the run.
    generator: its name in the run's config.
    settings: `config.generate` of the run: the mask rule and the filters.
    directions: one or two directions in latent space.
    draw: a compiled function from (directions, seed, shift) to the arrays of `Drawn`.
  """

  workdir: Path
  generator: str
  settings: ml_collections.ConfigDict
  directions: Float[np.ndarray, "k ..."]
  draw: Callable[[np.ndarray, int, float], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Drawn:
  """The generated images of several latents at one shift.

  Attributes:
    images: without the shift.
    shifted: with the shift, along each direction.
    difference: grey values of `light` minus `dark`, 128 where both are equal. With one direction,
      `light` minus the image without the shift.
    masks: True in the foreground.
    verdicts: by filter of the run, whether it accepts each mask.
    numbers: by filter, the measured numbers; see `candidates.filter_numbers`.
    seconds: the computing time, without the HTML.
  """

  images: UInt8[np.ndarray, "n h w 3"]
  shifted: UInt8[np.ndarray, "k n h w 3"]
  difference: UInt8[np.ndarray, "n h w"]
  masks: Bool[np.ndarray, "n h w"]
  verdicts: Mapping[str, Bool[np.ndarray, " n"]]
  numbers: Mapping[str, Num[np.ndarray, " n"]]
  seconds: float


@dataclasses.dataclass(frozen=True)
class Judgement:
  """The verdict of a filter on a mask.

  Attributes:
    name: of the filter.
    number: the measured number, as text.
    wanted: the accepted numbers, as text.
    accepted: whether the filter accepts the mask; None if the run does not use the filter.
  """

  name: str
  number: str
  wanted: str
  accepted: bool | None


def open_search(directory: Path) -> Search:
  """Opens a finished search, or returns it from a cache.

  Raises:
    ValueError, FileNotFoundError: the run has no finished search, or its generator is missing.
  """
  stage_records.require_stage(directory / "search", "search")
  settings = directory / "config.json"
  read = [settings, directory / "search" / stage_records.RECORD]
  read += [
    directory / "search" / "direction.npy",
    Path(whole_files.read_json(settings)["generator"]),
  ]
  return _open(directory, whole_files.identity(read))


@functools.lru_cache(maxsize=4)
def _open(directory: Path, identity: str) -> Search:
  del identity  # Part of the cache key: changed files are another search.
  config = ml_collections.ConfigDict(whole_files.read_json(directory / "config.json"))
  generator = generators.resolve(config.generator, config.generator_options.to_dict())
  directions = np.load(directory / "search" / "direction.npy", allow_pickle=False)
  draw = compiled(generator, config.generate)
  return Search(directory, config.generator, config.generate, directions, draw)


def compiled(
  generator: Generator, settings: ml_collections.ConfigDict
) -> Callable[[np.ndarray, int, float], dict[str, Any]]:
  """Returns a function from (directions, seed, shift) to the arrays of `Drawn`.

  The first call compiles the function. Later calls are fast, because the shapes never change.

  Args:
    generator: the pretrained generator.
    settings: `config.generate` of an experiment.
  """
  generator = with_dtype(generator, settings.dtype)

  def compute(variables, directions, seed, shift):
    indices = jnp.arange(LATENTS, dtype=jnp.int32)
    latents, labels = sample_at(generator, jax.random.key(seed), indices)
    images = generator.generate(variables, latents, labels)
    shifted = jnp.stack(
      [generator.generate(variables, latents + shift * each[None], labels) for each in directions]
    )
    masks, verdicts = candidates.mask_and_filters(images, shifted, settings)
    other = shifted[1] if len(shifted) == 2 else images
    return {
      "images": images,
      "shifted": shifted,
      "difference": (grey(shifted[0]) - grey(other)) / 2,
      "masks": masks,
      "verdicts": verdicts,
      "numbers": candidates.filter_numbers(masks, images, shifted, settings),
    }

  compute, variables = parallel.jit(compute), jax.device_put(generator.variables)

  def draw(directions, seed, shift):
    return compute(variables, directions, np.uint32(seed), np.float32(shift))

  return draw


def explore(
  search: Search, directions: Float[np.ndarray, "k ..."], seed: int, shift: float
) -> Drawn:
  """Generates images of latents at a shift.

  Args:
    search: from `open_search`.
    directions: of the search, or from one of its earlier steps.
    seed: of the latents, from 0 to 2^32 - 1.
    shift: the length of the shift, at least 0.
  """
  start = time.perf_counter()
  arrays = jax.device_get(search.draw(directions, seed, shift))
  for name in ("images", "shifted", "difference"):
    arrays[name] = writing.to_uint8(arrays[name])
  return Drawn(**arrays, seconds=time.perf_counter() - start)


def judge(drawn: Drawn, number: int, settings: ml_collections.ConfigDict) -> list[Judgement]:
  """Returns the verdict of each filter on the mask of a latent."""
  return [
    Judgement(
      name,
      f"{values[number]:d}" if name == "histogram" else f"{values[number]:.3f}",
      _wanted(name, settings),
      bool(drawn.verdicts[name][number]) if name in drawn.verdicts else None,
    )
    for name in FILTERS
    if (values := drawn.numbers.get(name)) is not None
  ]


def _wanted(name: str, settings: ml_collections.ConfigDict) -> str:
  low, high = settings.area
  return {
    "area": f"{low:g} to {high:g} of the image",
    "histogram": f"at least {settings.histogram_maxima} maxima",
    "roundness": f"above {settings.roundness:g}, in the largest component",
    "agreement": f"at least {settings.agreement:g} of the pixels",
  }[name]


def rejected_by(judgements: Sequence[Judgement]) -> list[str]:
  """Returns the names of the filters that reject a mask; none if the mask is kept."""
  return [judgement.name for judgement in judgements if judgement.accepted is False]
