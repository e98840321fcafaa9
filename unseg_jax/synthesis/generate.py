"""Stage 2 writes any number of images with masks (arXiv 2105.08127, section 3.2).

A device computes one chunk of `config.chunk` candidates at a time. A shard is a range of chunks
from one process. The data set therefore does not depend on the numbers of devices and processes.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import tqdm

from unseg_jax.array_types import Array, Float, Int, Key
from unseg_jax.errors import InvalidValue, UserError
from unseg_jax.generators import Generator, check_dtype, with_dtype
from unseg_jax.runtime import parallel, preemption, progress, settings, tracking, workers
from unseg_jax.runtime.barrier import barrier
from unseg_jax.synthesis import candidates, latents, records, shards
from unseg_jax.synthesis.acceptance import Acceptance, Live

SPLITS = ("train", "validation", "test")
# The acceptance rate is checked after this many candidates of a split.
CANDIDATES_BEFORE_VERDICT = 512
# Chunks that may wait for encoding, in addition to one per worker process.
WAITING_CHUNKS = 4

log = logging.getLogger(__name__)


class TooFewAccepted(UserError):
  """The filters reject almost all candidates, or a file of latents holds too few."""


def check_config(config: ml_collections.ConfigDict, directions: int) -> None:
  """Raises a ValueError for invalid settings in `config.generate`, also of `candidates`."""
  candidates.check_config(config, directions)
  settings.check_counts("generate", config, "chunk", "shard_candidates")
  settings.check(
    "generate",
    config,
    ("components", "a fraction of at least 0 and below 1", 0 <= config.components < 1),
    ("latent_noise", "at least 0", config.latent_noise >= 0),
    ("minimum_acceptance", "above 0 and at most 1", 0 < config.minimum_acceptance <= 1),
  )
  if config.shard_candidates % config.chunk:
    raise InvalidValue(
      f"config.generate.shard_candidates={config.shard_candidates} must be a multiple of "
      f"config.generate.chunk={config.chunk}"
    )
  check_dtype("config.generate.dtype", config.dtype)
  for split in SPLITS:
    least = 0 if split == "train" else 1
    if config.num_images[split] < least:
      raise InvalidValue(
        f"config.generate.num_images.{split}={config.num_images[split]}: expected at least {least}"
      )
  if config.latents and on_the_fly(config):
    raise InvalidValue(
      f"config.generate.latents={config.latents} needs a data set on disk; set "
      "config.generate.num_images.train to its size"
    )


def on_the_fly(config: ml_collections.ConfigDict) -> bool:
  """Whether training pairs are generated during training and never written."""
  return config.num_images.train == 0


def split_key(key: Key[Array, ""], split: str) -> Key[Array, ""]:
  """Derives the key of a split's candidate stream from the synthesis key of the experiment."""
  return parallel.fold_in(key, SPLITS.index(split))


def generate(
  generator: Generator,
  config: ml_collections.ConfigDict,
  directions: Float[np.ndarray, " k *latent_shape"],
  key: Key[Array, ""],
  folder: Path,
  worker_count: int = 0,
  events: tracking.EventWriter = tracking.SILENT,
) -> Acceptance:
  """Writes the data set: the accepted candidates of each split, in order, up to the set size.

  Args:
    generator: the pretrained generator.
    config: `config.generate` of an experiment.
    directions: `light`, or `light` and `dark`.
    key: the typed PRNG key of the synthesis.
    folder: receives the shards, then TFDS's metadata. Existing shards are kept.
    worker_count: number of processes that encode pairs; 0 uses threads of this process.
    events: receives for each split the acceptance rates, the speed, the fraction of time spent
      waiting for encoding, and the first pairs. Only candidates of this process count.

  Returns:
    The numbers of candidates and accepted candidates, over all splits.

  Raises:
    TooFewAccepted: the filters accept less than `config.minimum_acceptance` of the candidates, or a
      file of latents holds too few.
    preemption.Preempted: the run was asked to stop. Finished shards and the finished chunks of
      unfinished shards are kept.
    ValueError: the config or the file of latents is invalid.
    OSError: a shard could not be written.
  """
  check_config(config, len(directions))
  generator = with_dtype(generator, config.dtype)
  array = latents.read(config.latents, generator.latent_shape) if config.latents else None
  compute = parallel.pmap_local(candidates.make_candidates(generator, config))
  variables, directions = parallel.replicate((generator.variables, directions))
  splits = [split for split in SPLITS if config.num_images[split]]
  lengths, bits, waiting = {}, shards.mask_bits(folder), WAITING_CHUNKS + worker_count
  with workers.executor(worker_count) as encoders:
    for split in splits:
      keys = parallel.replicate(split_key(key, split))
      rows = None if array is None else latents.Rows(array, split, config.latent_noise)
      compute_split = functools.partial(compute, variables, directions, keys)
      live = Live(events.inside(split))
      making = _Split(split, config, folder, compute_split, rows, bits, encoders, waiting, live)
      lengths[split] = _generate_split(making)
      live.events.flush(publish=True)
  barrier("every shard is written")
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


@dataclasses.dataclass(frozen=True)
class _Split:
  """A split that this process makes.

  Attributes:
    name: one of `SPLITS`.
    config: `config.generate` of an experiment.
    folder: receives the shards.
    compute: maps the indices, and the latents if they come from a file, of all devices to
      candidates.
    rows: the latents from a file; None samples the generator's prior.
    mask_bits: bits per pixel of the masks on disk.
    encoders: worker processes or threads that encode pairs.
    waiting: number of chunks that may wait for encoding; the limit bounds memory.
    live: reports the progress.
    seen: counts of the candidates that this process has seen so far.
  """

  name: str
  config: ml_collections.ConfigDict
  folder: Path
  compute: Callable[..., dict[str, Any]]
  rows: latents.Rows | None
  mask_bits: int
  encoders: concurrent.futures.Executor
  waiting: int
  live: Live
  seen: Acceptance = dataclasses.field(default_factory=Acceptance)

  @property
  def num_images(self) -> int:
    """The number of pairs that the config requests."""
    return self.config.num_images[self.name]


@dataclasses.dataclass
class _Shard:
  """A shard of this process: its pairs and the counts of their chunks."""

  pairs: list[bytes]
  chunks: list[tuple[int, int, dict[str, int]]]  # Pairs, candidates, accepted by each filter.

  def cut(self, length: int | None) -> tuple[list[bytes], Acceptance]:
    """Returns the first `length` pairs, or all pairs, and the counts of their chunks."""
    counts, kept = Acceptance(), 0
    for new, seen, accepted in self.chunks:
      if length is not None and kept >= length:
        break
      counts.add(seen, accepted)
      kept += new
    return self.pairs[:length], counts

  def save(self, path: Path, missing: int, mask_bits: int) -> None:
    """Writes the finished chunks for a resumed run, which may need more or fewer pairs."""
    chunks = self.chunks
    if len(self.pairs) >= missing:
      chunks = chunks[:-1]  # The last chunk may be truncated.
    kept = sum(new for new, _, _ in chunks)
    shards.write_under_way(path, self.pairs[:kept], {"chunks": chunks, "mask_bits": mask_bits})

  @classmethod
  def restore(cls, path: Path) -> "_Shard":
    """Reads the partial shard that `save` wrote; an empty shard if there is none."""
    pairs, counts = shards.read_under_way(path)
    return cls(pairs, [tuple(chunk) for chunk in counts.get("chunks", [])])


def _generate_split(split: _Split) -> list[int]:
  """Writes the missing shards of one split; returns the lengths of all shards.

  In each round, every process makes one shard. The processes then exchange the numbers of records
  and cut the split at its size. A shard is written while the next one is made.
  """
  lengths: list[int] = []
  own = parallel.process_index()
  with (
    progress.bar(f"generate {split.name}", split.num_images, unit="pair") as bar,
    concurrent.futures.ThreadPoolExecutor(max_workers=1) as writer,
  ):
    writing = None
    while (missing := split.num_images - sum(lengths)) > 0:
      _check_rows(split, lengths)
      path = shards.shard_path(split.folder, split.name, len(lengths) + own)
      shard = None if shards.is_whole(path) else _Shard.restore(path)
      if shard is None:
        length = _count_written(split, path)
      else:
        _finish_shard(split, shard, len(lengths) + own, missing, bar)
        length = len(shard.pairs)
      everyone = parallel.gather([length, preemption.requested()])
      if everyone[:, 1].any():
        if shard is not None:
          shard.save(path, missing, split.mask_bits)
        preemption.leave(
          f"the shards of {split.name} are kept, and the finished chunks of the next ones"
        )
      before = np.cumsum(everyone[:, 0]) - everyone[:, 0]  # Records of all lower-ranked processes.
      kept = np.clip(missing - before, 0, everyone[:, 0])
      if shard is not None and before[own] < missing:
        if writing:
          writing.result()
        is_last = missing == before[own] + kept[own]
        pairs, counts = shard.cut(int(kept[own]) if is_last else None)
        described = dataclasses.asdict(counts) | {"mask_bits": split.mask_bits}
        writing = writer.submit(shards.write_shard, path, pairs, described)
      lengths += [int(n) for n, start in zip(kept, before, strict=True) if start < missing]
      bar.update(sum(lengths) - bar.n)
    if writing:
      writing.result()
  return lengths


def _check_rows(split: _Split, lengths: Sequence[int]) -> None:
  """Raises TooFewAccepted if the file of latents is exhausted."""
  if split.rows is None:
    return
  if len(lengths) * split.config.shard_candidates >= split.rows.limit(split.config.chunk):
    raise TooFewAccepted(split.rows.too_few(split.num_images, sum(lengths)))


def _count_written(split: _Split, path: Path) -> int:
  """Adds the counts of a shard on disk to the split's counts; returns its number of records."""
  counts = shards.read_counts(path)
  split.seen.add(counts["candidates"], counts["accepted"])
  return counts["records"]


def _finish_shard(split: _Split, shard: _Shard, index: int, missing: int, bar: tqdm.tqdm) -> None:
  """Completes a shard, or stops at the missing number of pairs or at a request to stop."""
  for _, candidates_seen, accepted in shard.chunks:
    split.seen.add(candidates_seen, accepted)
  count = len(shard.pairs)
  bar.update(count)
  if count >= missing:
    return
  encoding: collections.deque[list[concurrent.futures.Future]] = collections.deque()

  def collect_one():
    for future in encoding.popleft():
      shard.pairs.extend(future.result())

  split.live.begin(split.seen)
  for chunk in _chunks(split, index * split.config.shard_candidates, len(shard.chunks)):
    accepted = {name: int(verdict.sum()) for name, verdict in chunk["verdicts"].items()}
    kept = np.flatnonzero(chunk["verdicts"]["all"])[: missing - count]
    encoding.append(_encode(split, chunk, kept))
    count += len(kept)
    shard.chunks.append((len(kept), len(chunk["label"]), accepted))
    split.seen.add(len(chunk["label"]), accepted)
    split.live.show(chunk, kept)
    split.live.add(len(chunk["label"]), len(kept), split.seen)
    bar.update(len(kept))
    _check_acceptance(split)
    with split.live.watch.waiting():
      while len(encoding) > split.waiting:
        collect_one()
    if count >= missing or preemption.requested():
      break
  with split.live.watch.waiting():
    while encoding:
      collect_one()
  split.live.point(split.seen)


def _chunks(split: _Split, first: int, done: int) -> Iterator[dict[str, Any]]:
  """Computes the candidates of one shard and yields them by chunk, in order of their index.

  Each device computes one chunk at a time. While the caller processes these chunks, the devices
  compute the next ones and copy them to the host.

  Args:
    split: the split.
    first: the index of the shard's first candidate.
    done: the number of finished chunks of the shard.
  """
  size, end = split.config.chunk, first + split.config.shard_candidates
  if split.rows is not None:
    end = min(end, split.rows.limit(size))
  indices = np.arange(min(first + done * size, max(first, end)), max(first, end))
  per_call = size * parallel.local_device_count()
  # In the last call, devices without a chunk repeat the first chunks of the shard.
  padded = np.resize(indices, -(-len(indices) // per_call) * per_call)
  calls = [padded[i : i + per_call] for i in range(0, len(padded), per_call)]

  def start(call):
    given = () if split.rows is None else (split.rows.at(call),)
    made = split.compute(*parallel.spread(parallel.shard((call, *given))))
    for leaf in jax.tree.leaves(made):
      leaf.copy_to_host_async()
    return made

  pending = start(calls[0]) if calls else None
  for i, call in enumerate(calls):
    current, pending = pending, start(calls[i + 1]) if i + 1 < len(calls) else None
    arrays = parallel.unshard(current) | {"candidate": call}
    for offset in range(0, min(per_call, len(indices) - i * per_call), size):
      yield jax.tree.map(lambda x, offset=offset: x[offset : offset + size], arrays)


def _encode(
  split: _Split, chunk: dict[str, Any], kept: Int[np.ndarray, " pairs"]
) -> list[concurrent.futures.Future[list[bytes]]]:
  """Starts encoding the accepted candidates of a chunk."""
  columns = [chunk[name] for name in ("image", "mask", "label", "candidate")]
  encode = functools.partial(records.encode_all, mask_bits=split.mask_bits)
  together = records.pairs_per_task(chunk["image"].shape[1])
  return [
    split.encoders.submit(encode, *(column[few] for column in columns))
    for few in np.split(kept, range(together, len(kept), together))
  ]


def _check_acceptance(split: _Split) -> None:
  """Raises TooFewAccepted if the filters reject almost all candidates."""
  seen, least = split.seen, split.config.minimum_acceptance
  if seen.candidates >= CANDIDATES_BEFORE_VERDICT and seen.rates()["all"] < least:
    split.live.point(seen)
    raise TooFewAccepted(
      f"the filters reject almost everything: {seen}; at least "
      f"{least:.1%} is expected (config.generate.minimum_acceptance). Inspect "
      "the direction's picture. Then widen config.generate.area, set the filter that rejects "
      f"most to 0 ({', '.join(candidates.OPTIONAL_FILTERS)}), set "
      "config.generate.invert, or search with another config.seed."
    )
