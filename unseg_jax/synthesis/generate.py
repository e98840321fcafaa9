"""Stage 2: any number of images with masks (arXiv 2105.08127, section 3.2).

Candidates are computed in chunks of `config.chunk`, one chunk on one device, and a shard is a range
of them, made by one process: neither the number of devices nor that of processes changes anything.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from unseg_jax.generators import Generator, check_dtype, with_dtype
from unseg_jax.runtime import parallel, places, preemption, progress
from unseg_jax.synthesis import candidates, latents, shards

SPLITS = ("train", "validation", "test")
# After so many candidates, a split that keeps too few of them is given up.
CANDIDATES_BEFORE_VERDICT = 512
# Chunks that may wait for their encoding; more would fill the memory where encoding is slower.
WAITING_CHUNKS = 4

log = logging.getLogger(__name__)


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


def check_config(config: ml_collections.ConfigDict, directions: int) -> None:
  """Raises for settings of `config.generate` that make no sense; see `candidates.check_config`."""
  candidates.check_config(config, directions)
  if config.shard_candidates % config.chunk:
    raise ValueError(
      f"config.generate.shard_candidates={config.shard_candidates} must be a multiple of "
      f"config.generate.chunk={config.chunk}"
    )
  check_dtype("config.generate.dtype", config.dtype)
  for split in SPLITS:
    least = 0 if split == "train" else 1
    if config.num_images[split] < least:
      raise ValueError(
        f"config.generate.num_images.{split}={config.num_images[split]}: expected at least {least}"
      )
  if config.latents and on_the_fly(config):
    raise ValueError(
      f"config.generate.latents={config.latents} needs a data set on disk; set "
      "config.generate.num_images.train to its size"
    )


def on_the_fly(config: ml_collections.ConfigDict) -> bool:
  """Whether the training pairs are made while the segmenter trains, and never written."""
  return config.num_images.train == 0


def split_key(key: jax.Array, split: str) -> jax.Array:
  """The key of a split's stream of candidates, from that of the experiment's synthesis."""
  return jax.random.fold_in(key, SPLITS.index(split))


def generate(
  generator: Generator,
  config: ml_collections.ConfigDict,
  directions: np.ndarray,
  key: jax.Array,
  folder: Path,
) -> Acceptance:
  """Writes the data set: each split's accepted candidates, in order, cut at the size asked for.

  Args:
    generator: the pretrained generator.
    config: `config.generate` of an experiment.
    directions: `[K, *latent_shape]`, of `light` or of `light` and `dark`.
    key: the typed PRNG key of the experiment's synthesis.
    folder: receives the shards, then TFDS's metadata. Shards already there are kept.

  Returns:
    How many candidates there were, and how many were accepted, over all splits.

  Raises:
    TooFewAccepted: the filters keep less than `config.minimum_acceptance` of the candidates, or a
      file of latents holds too few.
    preemption.Preempted: the run was asked to leave; the shards are kept, those under way, too.
    ValueError: the config or the file of latents is wrong.
    OSError: a shard could not be written.
  """
  check_config(config, len(directions))
  generator = with_dtype(generator, config.dtype)
  given = latents.read(config.latents, generator.latent_shape) if config.latents else None
  compute = parallel.pmap_local(candidates.make_candidates(generator, config))
  variables, directions = parallel.replicate((generator.variables, directions))
  splits = [split for split in SPLITS if config.num_images[split]]
  lengths = {}
  for split in splits:
    keys = parallel.replicate(split_key(key, split))
    compute_split = functools.partial(compute, variables, directions, keys)
    rows = None if given is None else latents.Rows(given, split, config.latent_noise)
    lengths[split] = _generate_split(compute_split, config, folder, split, generator, rows)
  places.barrier("every shard is written")
  total = Acceptance()
  for split in splits:
    for index in range(len(lengths[split])):
      counts = shards.read_counts(shards.shard_path(folder, split, index))
      total.add(counts["candidates"], counts["accepted"])
  if parallel.is_primary():
    log.info("%s", total)
    shards.remove_under_way(folder)
    description = f"Images with masks by an unsupervised segmentation direction. {total}"
    shards.write_metadata(folder, generator.image_size, lengths, description)
  return total


@dataclasses.dataclass
class _Shard:
  """A shard of this process: its records, those of each chunk counted, and what was seen."""

  records: list[bytes]
  chunks: list[tuple[int, int, dict[str, int]]]  # Records, candidates, accepted by each filter.

  def cut(self, kept: int | None) -> tuple[list[bytes], Acceptance]:
    """The first `kept` records, or all, and the counts of the chunks that they come from."""
    counts, records = Acceptance(), 0
    for new, seen, accepted in self.chunks:
      if kept is not None and records >= kept:
        break
      counts.add(seen, accepted)
      records += new
    return self.records[:kept], counts

  def keep(self, path: Path, room: int) -> None:
    """Writes what there is of it, for whoever goes on with it, whatever the room is then."""
    chunks = self.chunks
    if len(self.records) >= room:
      chunks = chunks[:-1]  # It may be cut.
    records = sum(new for new, _, _ in chunks)
    shards.write_under_way(path, self.records[:records], chunks)

  @classmethod
  def started(cls, path: Path) -> "_Shard":
    """What `keep` wrote of a shard, if it did."""
    records, chunks = shards.read_under_way(path)
    return cls(records, [tuple(chunk) for chunk in chunks])


def _generate_split(compute, config, folder, split, generator, rows) -> list[int]:
  """Writes the shards of one split that are missing; returns all shards' lengths.

  The processes make one shard each, tell each other how many records they found, and cut where the
  split has its size. A shard is written while the next one is made.
  """
  wanted, lengths, seen = config.num_images[split], [], Acceptance()
  mine = parallel.process_index()
  with (
    progress.bar(f"generate {split}", wanted, unit="pair") as bar,
    concurrent.futures.ThreadPoolExecutor() as encoders,
    concurrent.futures.ThreadPoolExecutor(max_workers=1) as writer,
  ):
    writing = None
    while (room := wanted - sum(lengths)) > 0:
      if rows is not None and len(lengths) * config.shard_candidates >= rows.limit(config.chunk):
        raise TooFewAccepted(rows.too_few(wanted, sum(lengths)))
      index = len(lengths) + mine
      path = shards.shard_path(folder, split, index)
      if there := shards.is_whole(path):
        counts = shards.read_counts(path)
        seen.add(counts["candidates"], counts["accepted"])
        length = counts["records"]
      else:
        shard = _Shard.started(path)
        done = index * config.shard_candidates, len(shard.chunks)
        chunks = _chunks(compute, config, *done, rows)
        _go_on(shard, chunks, config, encoders, generator.image_size, room, seen, bar)
        length = len(shard.records)
      told = parallel.gather([length, preemption.requested()])
      if told[:, 1].any():
        if not there:
          shard.keep(path, room)
        preemption.leave(f"the shards of {split} are kept, and what is done of those under way")
      before = np.cumsum(told[:, 0]) - told[:, 0]
      kept = np.clip(room - before, 0, told[:, 0])
      if not there and room > before[mine]:
        if writing:
          writing.result()
        last = room == before[mine] + kept[mine]
        writing = writer.submit(_write, path, *shard.cut(kept[mine] if last else None))
      lengths += [int(length) for length, start in zip(kept, before, strict=True) if room > start]
      bar.update(sum(lengths) - bar.n)
    if writing:
      writing.result()
  return lengths


def _write(path: Path, records: list[bytes], counts: Acceptance) -> None:
  shards.write_shard(path, records, dataclasses.asdict(counts))


def _go_on(shard, chunks, config, encoders, image_size, room, seen, bar) -> None:
  """Makes the rest of a shard, or as much as there is `room` for; adds to what was `seen`."""
  encoding, found = collections.deque(), len(shard.records)
  for _, candidates_seen, verdicts in shard.chunks:
    seen.add(candidates_seen, verdicts)
  bar.update(found)
  if found >= room:
    return

  def finish_one():
    shard.records.extend(future.result() for future in encoding.popleft())

  for chunk in chunks:
    verdicts = {name: int(accepted.sum()) for name, accepted in chunk["verdicts"].items()}
    futures = _encode_accepted(encoders, chunk, image_size, room - found)
    encoding.append(futures)
    found += len(futures)
    shard.chunks.append((len(futures), len(chunk["label"]), verdicts))
    seen.add(len(chunk["label"]), verdicts)
    bar.update(len(futures))
    _check_acceptance(seen, config)
    while len(encoding) > WAITING_CHUNKS:
      finish_one()
    if found >= room or preemption.requested():
      break
  while encoding:
    finish_one()


def _chunks(compute, config, first: int, done: int, rows) -> Iterator[dict[str, Any]]:
  """Computes one shard's candidates and yields them chunk by chunk, in order of their index.

  The shard's first candidate has the number `first`, and so many of its chunks are done.

  Each device computes one chunk at a time; while the caller works on these, the next ones are under
  way, and on their way to the host.
  """
  end = first + config.shard_candidates
  if rows is not None:
    end = min(end, rows.limit(config.chunk))
  indices = np.arange(min(first + done * config.chunk, max(first, end)), max(first, end))
  per_call = config.chunk * parallel.local_device_count()
  # Devices without a chunk of their own in the last call repeat the shard's first ones.
  padded = np.resize(indices, -(-len(indices) // per_call) * per_call)
  calls = [padded[i : i + per_call] for i in range(0, len(padded), per_call)]

  def start(call):
    given = () if rows is None else (parallel.shard(rows.at(call)),)
    found = compute(parallel.shard(call), *given)
    for leaf in jax.tree.leaves(found):
      leaf.copy_to_host_async()
    return found

  pending = start(calls[0]) if calls else None
  for i, call in enumerate(calls):
    current, pending = pending, start(calls[i + 1]) if i + 1 < len(calls) else None
    arrays = parallel.unshard(current) | {"candidate": call}
    for offset in range(0, min(per_call, len(indices) - i * per_call), config.chunk):
      yield jax.tree.map(lambda x, offset=offset: x[offset : offset + config.chunk], arrays)


def _encode_accepted(
  encoders, chunk, image_size: int, room: int
) -> list[concurrent.futures.Future]:
  """Starts to encode the accepted candidates, at most as many as there is room for."""
  record = shards.features(image_size)
  accepted = np.flatnonzero(chunk["verdicts"]["all"])[:room]
  return [
    encoders.submit(
      shards.encode_record,
      chunk["image"][i],
      chunk["mask"][i],
      int(chunk["label"][i]),
      int(chunk["candidate"][i]),
      record,
    )
    for i in accepted
  ]


def _check_acceptance(seen: Acceptance, config) -> None:
  if seen.candidates >= CANDIDATES_BEFORE_VERDICT:
    if seen.rates()["all"] < config.minimum_acceptance:
      raise TooFewAccepted(
        f"the filters reject almost everything: {seen}; at least "
        f"{config.minimum_acceptance:.1%} is expected (config.generate.minimum_acceptance). Look "
        "at the direction's picture; then widen config.generate.area, set the filter that rejects "
        "most to 0 (components, histogram_maxima, roundness, agreement), set "
        "config.generate.invert, or search with another config.seed."
      )
