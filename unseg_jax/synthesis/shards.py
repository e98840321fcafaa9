"""Generated data sets on disk: ArrayRecord shards that TFDS reads like any other data set.

`tfds.builder_from_directory(folder).as_data_source(split)` opens a split.
"""

import concurrent.futures
import functools
import glob
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from unseg_jax.array_types import Bool, UInt8
from unseg_jax.errors import InvalidValue
from unseg_jax.runtime.prefetch import prefetch
from unseg_jax.storage import places, whole_files
from unseg_jax.synthesis import records

NAME = "synthetic"
UNDER_WAY = "under_way"
DECODING_THREADS = 2
DECODED_AHEAD = 64  # Pairs.
# Several threads read a split: only one of them fetches its shards at a time.
_checking = threading.Lock()
FILENAME = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"


def features(image_size: int) -> tfds.features.FeaturesDict:
  """Returns a record's features: image (JPEG), mask (PNG, 255 is foreground), class, candidate."""
  return tfds.features.FeaturesDict(
    {
      "image": tfds.features.Image(shape=(image_size, image_size, 3), encoding_format="jpeg"),
      "mask": tfds.features.Image(shape=(image_size, image_size, 1), encoding_format="png"),
      "label": tfds.features.Scalar(np.int64),
      "candidate": tfds.features.Scalar(np.int64),
    }
  )


def shard_path(folder: Path, split: str, index: int) -> Path:
  """Returns the path of one shard."""
  return folder / f"{NAME}-{split}.array_record-{index:05d}"


def write_shard(path: Path, pairs: Sequence[bytes], counts: Mapping[str, Any]) -> None:
  """Writes a shard atomically, together with its counts.

  Args:
    path: the path of the shard, from `shard_path`.
    pairs: pairs serialised by `records.encode`.
    counts: further entries of the counts, such as the numbers of candidates and accepted ones.

  Raises:
    OSError: the shard could not be written, for example to a full disk; no file remains.
    ValueError: an earlier file of the shard held a different number of records.
  """
  counts = {**counts, "records": len(pairs)}
  if (known := _counts_path(path)).exists():
    if (before := whole_files.read_json(known)["records"]) != len(pairs):
      raise InvalidValue(
        f"{path} held {before} records and now has {len(pairs)}: it was made on other hardware "
        f"or by another version. Delete {path.parent} and generate all of it again."
      )
  with whole_files.whole_file(path) as temporary:
    try:
      # JPEG and PNG files are compressed already.
      options = "group_size:1,uncompressed"
      writer = array_record_module.ArrayRecordWriter(str(temporary), options)
      for record in pairs:
        writer.write(record)
      writer.close()
    except RuntimeError as error:
      raise OSError(
        f"the shard {path} could not be written ({error}). Free some disk space and run again: "
        "earlier shards are kept."
      ) from error
    # The counts are written first, because the shard file marks the shard as complete.
    whole_files.write_json(known, counts | {"sha256": whole_files.sha256(temporary)})


def write_under_way(path: Path, pairs: Sequence[bytes], counts: Mapping[str, Any]) -> None:
  """Writes the finished part of a shard whose process must stop; see `write_shard`."""
  kept = _under_way(path)
  _counts_path(kept).unlink(missing_ok=True)  # The counts of an earlier, shorter part.
  write_shard(kept, pairs, counts)


def read_under_way(path: Path) -> tuple[list[bytes], dict[str, Any]]:
  """Reads the pairs and counts from `write_under_way`; empty if missing or damaged."""
  kept = _under_way(path)
  if not is_whole(kept):
    return [], {}
  places.fetch([kept])
  if not _is_as_written(kept):
    return [], {}
  reader = array_record_module.ArrayRecordReader(str(kept))
  pairs = reader.read_all() if reader.num_records() else []
  reader.close()
  return pairs, read_counts(kept)


def mask_bits(folder: Path) -> int:
  """Returns the bits per mask pixel: those of the shards on disk (8 in older versions), if any."""
  counts = [*folder.glob("counts/*.json"), *folder.glob(f"{UNDER_WAY}/counts/*.json")]
  return whole_files.read_json(min(counts)).get("mask_bits", 8) if counts else records.MASK_BITS


def remove_under_way(folder: Path) -> None:
  """Removes all partial shards of a data set."""
  if (folder / UNDER_WAY).exists():
    shutil.rmtree(folder / UNDER_WAY)
    places.remove(folder / UNDER_WAY)


def _under_way(path: Path) -> Path:
  return path.parent / UNDER_WAY / path.name


def is_whole(path: Path) -> bool:
  """Whether a shard is complete."""
  return places.size(path) is not None and _counts_path(path).exists()


def read_counts(path: Path) -> dict[str, Any]:
  """Reads the counts from `write_shard`, including `records` and `sha256`."""
  return whole_files.read_json(_counts_path(path))


def _counts_path(path: Path) -> Path:
  return path.parent / "counts" / f"{path.name}.json"


def damaged_shards(folder: Path, split: str = "*") -> list[Path]:
  """Returns the shards, of one split or of all, that are missing or differ from their SHA-256."""
  pattern = f"{glob.escape(NAME)}-{split}.array_record-*.json"
  paths = [folder / known.stem for known in sorted((folder / "counts").glob(pattern))]
  places.fetch(paths)
  with concurrent.futures.ThreadPoolExecutor() as pool:
    return [
      path for path, good in zip(paths, pool.map(_is_as_written, paths), strict=True) if not good
    ]


def _is_as_written(path: Path) -> bool:
  return path.exists() and whole_files.sha256(path) == read_counts(path).get("sha256")


def _check(checked: set[str], paths: Sequence[str]) -> None:
  """Fetches the shards that are not `checked` yet; raises a ValueError for damaged ones."""
  with _checking:
    fresh = [Path(path) for path in paths if path not in checked]
    if not fresh:
      return
    places.fetch(fresh)
    with concurrent.futures.ThreadPoolExecutor() as pool:
      good = list(pool.map(_is_as_written, fresh))
    _refuse([path for path, is_good in zip(fresh, good, strict=True) if not is_good])
    checked.update(map(str, fresh))


def _refuse(damaged: Sequence[Path]) -> None:
  if not damaged:
    return
  run = next(
    (folder for folder in damaged[0].parents if (folder / "config.json").exists()),
    damaged[0].parent.parent,
  )
  stage = damaged[0].relative_to(run).parts[0]
  names = ", ".join(map(str, damaged))
  raise InvalidValue(
    f"damaged shards, whose SHA-256 does not match the recorded one: {names}. Regenerate only "
    f"these with: python -m unseg_jax.main --config={run / 'config.json'} --workdir={run} "
    f"--stages={stage} --repair"
  )


def write_metadata(
  folder: Path, image_size: int, shard_lengths: Mapping[str, Sequence[int]], description: str
) -> None:
  """Completes a data set by writing TFDS's metadata."""
  splits = []
  for split, lengths in shard_lengths.items():
    template = _template(folder, split)
    num_bytes = sum(_num_bytes(shard_path(folder, split, i)) for i in range(len(lengths)))
    splits.append(
      tfds.core.SplitInfo(
        name=split, shard_lengths=list(lengths), num_bytes=num_bytes, filename_template=template
      )
    )
  tfds.folder_dataset.write_metadata(
    data_dir=folder,
    features=features(image_size),
    split_infos=splits,
    filename_template=_template(folder, next(iter(shard_lengths))),
    description=description,
    check_data=False,  # TFDS checks with tf.data, which cannot read ArrayRecord.
  )
  for name in ("features.json", "dataset_info.json"):  # The second marks the data set complete.
    places.publish(folder / name)


def _num_bytes(path: Path) -> int:
  size = places.size(path)
  if size is None:
    raise FileNotFoundError(f"the shard {path} is missing; run the stage generate again")
  return size


def _template(folder: Path, split: str) -> tfds.core.ShardedFileTemplate:
  return tfds.core.ShardedFileTemplate(
    data_dir=folder,
    dataset_name=NAME,
    split=split,
    filetype_suffix="array_record",
    template=FILENAME,
  )


def read(folder: Path, split: str) -> records.Split:
  """Opens a split for random access: pairs with `image`, `mask` [S, S, 1], `label`, `candidate`.

  A shard is fetched and verified when this process first reads from it.

  Raises:
    FileNotFoundError: the folder holds no complete data set.
    ValueError: a shard is missing. Reading from the split raises it for a damaged shard.
  """
  if not (folder / "dataset_info.json").exists():
    raise FileNotFoundError(f"{folder} holds no complete data set; run the stage generate")
  info = tfds.builder_from_directory(folder).info.splits[split]
  paths = [Path(path) for path in info.filepaths]
  _refuse([path for path in paths if not is_whole(path)])
  checked: set[str] = set()
  return records.Split(
    tuple(map(str, paths)), tuple(info.shard_lengths), functools.partial(_check, checked)
  )


def read_whole(folder: Path) -> records.Split:
  """Opens the complete shards of an incomplete data set, of all splits together."""
  found = [folder / path.stem for path in sorted((folder / "counts").glob("*.json"))]
  whole = [path for path in found if is_whole(path)]
  lengths = tuple(read_counts(path)["records"] for path in whole)
  checked: set[str] = set()
  return records.Split(tuple(map(str, whole)), lengths, functools.partial(_check, checked))


def pairs(
  source: Sequence[Any], numbers: Iterable[int] | None = None
) -> Iterator[tuple[UInt8[np.ndarray, "s s 3"], Bool[np.ndarray, "s s"]]]:
  """Yields the images and masks of a split from `read`, decoded ahead in other threads.

  Args:
    source: the split, with records as from `records.decode`.
    numbers: the indices of the pairs; None yields all.
  """
  numbers = range(len(source)) if numbers is None else numbers
  with concurrent.futures.ThreadPoolExecutor(DECODING_THREADS) as threads:
    for record in prefetch(threads, source.__getitem__, numbers, DECODED_AHEAD):
      yield record["image"], record["mask"][..., 0] > 127
