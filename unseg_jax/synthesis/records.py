"""Encodes a pair as a `tf.Example` with a JPEG image and a PNG mask, and decodes it.

TFDS reads the same bytes with the features of `shards.features`. This module imports no JAX, TFDS
or grain, so a worker process starts within half a second.
"""

import dataclasses
import functools
import io
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import simplejpeg
from array_record.python import array_record_module
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image

from unseg_jax.runtime import shared_arrays

JPEG_QUALITY = 95
# Masks have one bit per pixel. Earlier versions wrote eight, at PIL's default compression level.
MASK_BITS = 1
# On a scale to 9. Masks are simple, so higher levels take longer and save little.
PNG_LEVEL = 1


def _example_class() -> Any:
  """Returns the message class `tf.Example` (tensorflow/core/example/example.proto)."""
  field = descriptor_pb2.FieldDescriptorProto
  file = descriptor_pb2.FileDescriptorProto(
    name="unseg_jax/example.proto", package="unseg_jax", syntax="proto3"
  )

  def add(parent, name, *fields):
    added = parent.add(name=name)
    for number, (field_name, label, kind) in enumerate(fields, 1):
      entry = added.field.add(name=field_name, number=number, label=label)
      if isinstance(kind, str):
        entry.type, entry.type_name = field.TYPE_MESSAGE, f".unseg_jax.{kind}"
      else:
        entry.type = kind
    return added

  one, many, messages = field.LABEL_OPTIONAL, field.LABEL_REPEATED, file.message_type
  add(messages, "BytesList", ("value", many, field.TYPE_BYTES))
  add(messages, "FloatList", ("value", many, field.TYPE_FLOAT))
  add(messages, "Int64List", ("value", many, field.TYPE_INT64))
  kinds = ("bytes_list", one, "BytesList"), ("float_list", one, "FloatList")
  feature = add(messages, "Feature", *kinds, ("int64_list", one, "Int64List"))
  feature.oneof_decl.add(name="kind")
  for entry in feature.field:
    entry.oneof_index = 0
  features = add(messages, "Features", ("feature", many, "Features.FeatureEntry"))
  pairs = ("key", one, field.TYPE_STRING), ("value", one, "Feature")
  add(features.nested_type, "FeatureEntry", *pairs).options.map_entry = True
  add(messages, "Example", ("features", one, "Features"))
  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  return message_factory.GetMessageClass(pool.FindMessageTypeByName("unseg_jax.Example"))


_Example = _example_class()


def encode(
  image: np.ndarray, mask: np.ndarray, label: int, candidate: int, mask_bits: int = MASK_BITS
) -> bytes:
  """Serialises one pair deterministically.

  Args:
    image: `[S, S, 3]` uint8.
    mask: `[S, S]` bool, True in the foreground.
    label: the class of the generated image; 0 if unconditional.
    candidate: the candidate index in the split; with the config's seed, it reproduces the pair.
    mask_bits: 1, or 8 as in earlier versions.
  """
  example = _Example()
  feature = example.features.feature
  image_bytes = _save(image, "JPEG", quality=JPEG_QUALITY, subsampling=0)
  feature["image"].bytes_list.value.append(image_bytes)
  if mask_bits == 1:
    mask_bytes = _save(mask, "PNG", compress_level=PNG_LEVEL)
  else:
    mask_bytes = _save(np.where(mask, 255, 0).astype(np.uint8), "PNG")
  feature["mask"].bytes_list.value.append(mask_bytes)
  feature["label"].int64_list.value.append(label)
  feature["candidate"].int64_list.value.append(candidate)
  # By default, protobuf orders map entries differently in each process.
  return example.SerializeToString(deterministic=True)


def typical_bytes(side: int) -> float:
  """Estimates the bytes on disk of a pair with the given side length.

  Photographs take 13 kB at 128 pixels, 40 kB at 256 and 120 kB at 512 (docs/reproducing.md).
  """
  return 13e3 * (side / 128) ** 1.6


def pairs_per_task(side: int) -> int:
  """Returns the number of pairs of the given side length for a task of a worker process."""
  return shared_arrays.items_per_task(4 * side**2)


def encode_all(
  images: np.ndarray,
  masks: np.ndarray,
  labels: np.ndarray,
  candidates: np.ndarray,
  mask_bits: int = MASK_BITS,
) -> list[bytes]:
  """Serialises a batch of pairs in order; see `encode` for the arguments of one pair."""
  return [
    encode(image, mask, int(label), int(candidate), mask_bits)
    for image, mask, label, candidate in zip(images, masks, labels, candidates, strict=True)
  ]


def _save(array: np.ndarray, image_format: str, **options: Any) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, image_format, **options)
  return buffer.getvalue()


def decode(record: bytes) -> dict[str, Any]:
  """Decodes the output of `encode`, with masks of 1 or 8 bits.

  Returns:
    `image` `[S, S, 3]` uint8, `mask` `[S, S, 1]` uint8 with 255 as foreground, `label` and
    `candidate`.
  """
  feature = _Example.FromString(record).features.feature
  with Image.open(io.BytesIO(feature["mask"].bytes_list.value[0])) as mask:
    pixels = np.asarray(mask.convert("L"))
  return {
    "image": simplejpeg.decode_jpeg(feature["image"].bytes_list.value[0]),
    "mask": pixels[..., None],
    "label": feature["label"].int64_list.value[0],
    "candidate": feature["candidate"].int64_list.value[0],
  }


def _is_prepared(paths: Sequence[str]) -> None:
  """Does nothing; for shards that need no preparation before reading."""


@dataclasses.dataclass(frozen=True)
class Split(Sequence[Any]):
  """Random access to the records of a split, in shard order.

  Attributes:
    paths: the local shard files.
    lengths: the number of records in each shard.
    prepare: receives the shards of the next records before these are read, such as to check them.
  """

  paths: tuple[str, ...]
  lengths: tuple[int, ...]
  prepare: Callable[[Sequence[str]], None] = _is_prepared

  @functools.cached_property
  def _ends(self) -> np.ndarray:
    return np.cumsum(self.lengths)

  def __len__(self) -> int:
    return sum(self.lengths)

  def __getitem__(self, index):
    return decode(read(*self.locate_all([index])[0]))

  def locate_all(self, indices: Iterable[int]) -> list[tuple[str, int]]:
    """Prepares the shards of the records and locates the records; see `locate`."""
    located = [self.locate(index) for index in indices]
    self.prepare(sorted({path for path, _ in located}))
    return located

  def locate(self, index: int) -> tuple[str, int]:
    """Returns the shard of a record and the record's index within it.

    Raises:
      IndexError: the split does not have this record.
    """
    if not 0 <= index < len(self):
      raise IndexError(f"record {index}: the split has {len(self)}")
    shard = int(np.searchsorted(self._ends, index, side="right"))
    return self.paths[shard], int(index - self._ends[shard] + self.lengths[shard])


def read(path: str, number: int) -> bytes:
  """Reads one record of a shard."""
  status = os.stat(path)
  return _reader(path, status.st_ino, status.st_mtime_ns).read([number])[0]


@functools.lru_cache(maxsize=256)
def _reader(path: str, *_: int) -> array_record_module.ArrayRecordReader:
  """Opens a shard; the cache is valid while the file at this path is unchanged."""
  # Without a read-ahead buffer, because the records of a batch are far apart.
  return array_record_module.ArrayRecordReader(path, options="readahead_buffer_size:0")
