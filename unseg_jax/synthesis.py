"""Stage 2: any number of images with masks (arXiv 2105.08127, section 3.2).

Candidate `i` of a split is a pure function of the seed, the split and `i`. Candidates are computed
in chunks of `config.chunk`, one chunk on one device, so that the number of devices changes nothing.
"""

import concurrent.futures
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from unseg_jax import masks, parallel, progress, workdir
from unseg_jax.data import synthetic
from unseg_jax.generators import Generator, sample_at

SPLITS = ("train", "validation", "test")
# After so many candidates, a split that keeps too few of them is given up.
CANDIDATES_BEFORE_VERDICT = 512


class TooFewAccepted(Exception):
  """The filters reject almost everything."""


@dataclasses.dataclass
class Acceptance:
  """How many candidates were seen, and how many each filter alone, and all together, accepted."""

  candidates: int = 0
  accepted: dict[str, int] = dataclasses.field(default_factory=dict)

  def add(self, candidates: int, accepted: dict[str, int]) -> None:
    """Adds another batch's counts."""
    self.candidates += candidates
    for name, count in accepted.items():
      self.accepted[name] = self.accepted.get(name, 0) + count

  def rates(self) -> dict[str, float]:
    """Shares of the candidates, by filter."""
    return {name: count / max(self.candidates, 1) for name, count in self.accepted.items()}

  def __str__(self) -> str:
    rates = ", ".join(f"{name} {rate:.1%}" for name, rate in self.rates().items())
    return f"accepted of {self.candidates:,} candidates: {rates}"


def check_config(config: ml_collections.ConfigDict) -> None:
  """Raises a ValueError for settings of `config.generate` that make no sense."""
  if config.shard_candidates % config.chunk:
    raise ValueError(
      f"config.generate.shard_candidates={config.shard_candidates} must be a multiple of "
      f"config.generate.chunk={config.chunk}"
    )
  low, high = config.area
  if not 0 <= low <= high <= 1:
    raise ValueError(f"config.generate.area={config.area}: expected 0 <= low <= high <= 1")
  if config.rule not in masks.MASK_RULES:
    raise ValueError(
      f"config.generate.rule={config.rule!r}: expected one of {list(masks.MASK_RULES)}"
    )


def mask_and_filters(
  images: jax.Array, shifted: jax.Array, config: ml_collections.ConfigDict
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Applies the mask rule and every filter that the config switches on.

  Args:
    images: `[N, H, W, 3]` float32 in [-1, 1].
    shifted: the same latents' images after the shift.
    config: `config.generate` of an experiment.

  Returns:
    Masks `[N, H, W]` bool, and each filter's verdict `[N]` bool by its name.
  """
  found = masks.difference_mask(images, shifted, config.rule, config.invert)
  if config.components:
    found = masks.keep_large_components(found, config.components)
  verdicts = {"area": masks.area_accepted(found, *config.area)}
  if config.histogram_maxima:
    verdicts["histogram"] = masks.histogram_accepted(
      shifted, bins=config.histogram_bins, minimum_maxima=config.histogram_maxima
    )
  if config.roundness:
    verdicts["roundness"] = masks.roundness_accepted(found, config.roundness)
  return found, verdicts


def make_candidates(
  generator: Generator, config: ml_collections.ConfigDict
) -> Callable[..., dict[str, Any]]:
  """Returns the function of (variables, direction, key, indices `[chunk]`) that computes a chunk.

  Its result holds `image` `[chunk, H, W, 3]` uint8, `mask` `[chunk, H, W]` bool, `label` `[chunk]`,
  and `verdicts`: each filter's, and `all`, `[chunk]` bool.
  """

  def candidates(variables, direction, key, indices):
    latents, labels = sample_at(generator, key, indices)
    images = generator.generate(variables, latents, labels)
    shifted = generator.generate(variables, latents + config.shift * direction, labels)
    found, verdicts = mask_and_filters(images, shifted, config)
    everything = jnp.all(jnp.stack(list(verdicts.values())), axis=0)
    pixels = jnp.clip(jnp.round((images + 1.0) * 127.5), 0, 255).astype(jnp.uint8)
    return {
      "image": pixels,
      "mask": found,
      "label": labels,
      "verdicts": verdicts | {"all": everything},
    }

  return candidates


def generate(
  generator: Generator,
  config: ml_collections.ConfigDict,
  direction: np.ndarray,
  key: jax.Array,
  folder: Path,
) -> Acceptance:
  """Writes the data set: each split's accepted candidates, in order, cut at the size asked for.

  Args:
    generator: the pretrained generator.
    config: `config.generate` of an experiment.
    direction: `[1, *latent_shape]`.
    key: the typed PRNG key of the experiment's synthesis.
    folder: receives the shards, then TFDS's metadata. Shards already there are kept.

  Returns:
    How many candidates there were, and how many were accepted, over all splits.

  Raises:
    TooFewAccepted: the filters keep less than `config.minimum_acceptance` of the candidates.
    OSError: a shard could not be written.
  """
  check_config(config)
  variables = parallel.replicate(generator.variables)
  directions = parallel.replicate(direction)
  total = Acceptance()
  shard_lengths = {}
  compute = parallel.pmap(make_candidates(generator, config))
  for number, split in enumerate(SPLITS):
    split_key = parallel.replicate(jax.random.fold_in(key, number))
    compute_split = functools.partial(compute, variables, directions, split_key)
    counts, lengths = _generate_split(compute_split, config, folder, split, generator.image_size)
    total.add(counts.candidates, counts.accepted)
    shard_lengths[split] = lengths
  logging.getLogger(__name__).info("%s", total)
  description = f"Images with masks by an unsupervised segmentation direction. {total}"
  synthetic.write_metadata(folder, generator.image_size, shard_lengths, description)
  return total


def _generate_split(compute, config, folder, split, image_size) -> tuple[Acceptance, list[int]]:
  """Writes the shards of one split that are missing; returns the counts and all shards' lengths."""
  wanted = config.num_images[split]
  total, lengths = Acceptance(), []
  with (
    progress.bar(f"generate {split}", wanted, unit="pair") as bar,
    concurrent.futures.ThreadPoolExecutor() as pool,
  ):
    while sum(lengths) < wanted:
      path = synthetic.shard_path(folder, split, len(lengths))
      counts_path = folder / "counts" / f"{path.name}.json"
      if path.exists() and counts_path.exists():
        counts = workdir.read_json(counts_path)
        total.add(counts["candidates"], counts["accepted"])
        bar.update(counts["records"])
      else:
        counts, records = Acceptance(), []
        for chunk in _chunks(compute, config, len(lengths) * config.shard_candidates):
          verdicts = {name: int(accepted.sum()) for name, accepted in chunk["verdicts"].items()}
          counts.add(len(chunk["label"]), verdicts)
          new = _encode_accepted(pool, chunk, image_size, wanted - sum(lengths) - len(records))
          records += new
          bar.update(len(new))
          _check_acceptance(total, counts, config)
          if sum(lengths) + len(records) == wanted:
            break
        counts = {**dataclasses.asdict(counts), "records": len(records)}
        total.add(counts["candidates"], counts["accepted"])
        # The counts come first: a shard is complete when its own file is there.
        workdir.write_json(counts_path, counts)
        synthetic.write_shard(path, records)
      lengths.append(counts["records"])
  return total, lengths


def _chunks(compute, config, first: int) -> Iterator[dict[str, Any]]:
  """Computes one shard's candidates and yields them chunk by chunk, in order of their index.

  Each device computes one chunk at a time; the next ones are under way while the caller works on
  these.
  """
  indices = np.arange(first, first + config.shard_candidates)
  per_call = config.chunk * parallel.device_count()
  # Devices without a chunk of their own in the last call repeat the shard's first ones.
  padded = np.resize(indices, -(-len(indices) // per_call) * per_call)
  calls = [padded[i : i + per_call] for i in range(0, len(padded), per_call)]
  pending = compute(parallel.shard(calls[0]))
  for i, call in enumerate(calls):
    current, pending = (
      pending,
      compute(parallel.shard(calls[i + 1])) if call is not calls[-1] else None,
    )
    arrays = parallel.unshard(current) | {"candidate": call}
    for start in range(0, min(per_call, len(indices) - i * per_call), config.chunk):
      yield jax.tree.map(lambda x, start=start: x[start : start + config.chunk], arrays)


def _encode_accepted(pool, chunk, image_size: int, wanted: int) -> list[bytes]:
  """Encodes the accepted candidates, `wanted` at most, on a pool of threads."""
  record = synthetic.features(image_size)
  accepted = np.flatnonzero(chunk["verdicts"]["all"])[: max(wanted, 0)]
  return list(
    pool.map(
      lambda i: synthetic.encode_record(
        chunk["image"][i],
        chunk["mask"][i],
        int(chunk["label"][i]),
        int(chunk["candidate"][i]),
        record,
      ),
      accepted,
    )
  )


def _check_acceptance(before: Acceptance, counts: Acceptance, config) -> None:
  seen = Acceptance(before.candidates, dict(before.accepted))
  seen.add(counts.candidates, counts.accepted)
  if seen.candidates >= CANDIDATES_BEFORE_VERDICT:
    if seen.rates()["all"] < config.minimum_acceptance:
      raise TooFewAccepted(
        f"the filters reject almost everything: {seen}; at least "
        f"{config.minimum_acceptance:.1%} is expected (config.generate.minimum_acceptance). Look "
        "at the direction's picture; then widen config.generate.area, set the filter that rejects "
        "most to 0 (components, histogram_maxima, roundness), set config.generate.invert, or "
        "search with another config.seed."
      )
