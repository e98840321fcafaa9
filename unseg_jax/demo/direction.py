"""The second tab: latents of a generator as they move along the directions of a run."""

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

FILTERS = ("area", "histogram", "roundness", "agreement")  # In the order in which they are shown.
LATENTS = 6
LONGEST_SHIFT = 10.0  # Twice that of the paper.


@dataclasses.dataclass(frozen=True)
class Search:
  """A finished search, and its generator, compiled to be drawn.

  Attributes:
    workdir: of the run.
    generator: how the run's config names it.
    settings: `config.generate` of the run: the mask rule and the filters.
    directions: of latents, one or two.
    draw: compiled `(directions, seed, shift) -> ` what `Drawn` holds, on the device.
  """

  workdir: Path
  generator: str
  settings: ml_collections.ConfigDict
  directions: Float[np.ndarray, "k ..."]
  draw: Callable[[np.ndarray, int, float], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Drawn:
  """Latents at one shift.

  Attributes:
    images: before the shift.
    shifted: after it, along each direction.
    difference: `light` less `dark` in grey, 128 where they are equal; of one direction `light` less
      the image.
    masks: of the foreground.
    verdicts: for each filter that the run uses whether it accepts.
    numbers: what the filters decide by; see `candidates.filter_numbers`.
    seconds: what it took, all but the drawing of the page.
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
  """What a filter says of a mask.

  Attributes:
    name: the filter's.
    number: what it measured, as text.
    wanted: what it wants, as text.
    accepted: its verdict; None if the run does not use it.
  """

  name: str
  number: str
  wanted: str
  accepted: bool | None


def open_search(directory: Path) -> Search:
  """Opens a finished search, or returns it if it was used a moment ago.

  Raises:
    ValueError, FileNotFoundError: the run has no such search, or its generator is missing.
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
  del identity  # Of the files that are read: others are another search.
  config = ml_collections.ConfigDict(whole_files.read_json(directory / "config.json"))
  generator = generators.resolve(config.generator, config.generator_options.to_dict())
  directions = np.load(directory / "search" / "direction.npy", allow_pickle=False)
  draw = compiled(generator, config.generate)
  return Search(directory, config.generator, config.generate, directions, draw)


def compiled(
  generator: Generator, settings: ml_collections.ConfigDict
) -> Callable[[np.ndarray, int, float], dict[str, Any]]:
  """Returns the function of (directions, seed, shift) that computes what `Drawn` holds.

  Its shapes never change, so it is compiled at its first call and quick from then on.

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
  """Draws latents at a shift.

  Args:
    search: of `open_search`.
    directions: the search's, or its earlier ones.
    seed: of the latents, from 0 to 2^32 - 1.
    shift: its length, at least 0.
  """
  start = time.perf_counter()
  arrays = jax.device_get(search.draw(directions, seed, shift))
  for name in ("images", "shifted", "difference"):
    arrays[name] = writing.to_uint8(arrays[name])
  return Drawn(**arrays, seconds=time.perf_counter() - start)


def judge(drawn: Drawn, number: int, settings: ml_collections.ConfigDict) -> list[Judgement]:
  """Says what every filter measured of a latent's mask, what it wants, and its verdict."""
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
    "area": f"{low:g} to {high:g} of the picture",
    "histogram": f"at least {settings.histogram_maxima} maxima",
    "roundness": f"above {settings.roundness:g}, by its largest part",
    "agreement": f"at least {settings.agreement:g} of the pixels",
  }[name]


def rejected_by(judgements: Sequence[Judgement]) -> list[str]:
  """The names of the filters that reject a mask; none if it is kept."""
  return [judgement.name for judgement in judgements if judgement.accepted is False]
