"""Records: a pair as the bytes of a `tf.Example` with a JPEG image and a PNG mask, and back.

TFDS reads the same bytes by the features of `shards.features`. Nothing here imports JAX, TFDS or
grain, so that a worker process starts within half a second.
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

JPEG_QUALITY = 95
# Masks have one bit a pixel. Earlier versions wrote eight, at PIL's own level of compression.
MASK_BITS = 1
# Of 9. A mask is plain: higher levels take longer and save little.
PNG_LEVEL = 1


def _example_class() -> Any:
  """The message `tf.Example` (tensorflow/core/example/example.proto), without TensorFlow."""
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
  """Serialises one pair; the same pair always gives the same bytes.

  Args:
    image: `[S, S, 3]` uint8.
    mask: `[S, S]` bool, True in the foreground.
    label: the class that the image was generated with; 0 if unconditional.
    candidate: its index among the split's candidates, which with the config's seed makes it again.
    mask_bits: 1, or 8 as earlier versions wrote masks.
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
  # Protobuf writes a map's entries in an order of each process's own unless asked not to.
  return example.SerializeToString(deterministic=True)


def typical_bytes(side: int) -> float:
  """About how many bytes a pair of these sides takes on disk, by photographs at several sizes.

  They take 13 kB at 128 pixels, 40 kB at 256 and 120 kB at 512 (docs/reproducing.md).
  """
  return 13e3 * (side / 128) ** 1.6


def encode_all(
  images: np.ndarray,
  masks: np.ndarray,
  labels: np.ndarray,
  candidates: np.ndarray,
  mask_bits: int = MASK_BITS,
) -> list[bytes]:
  """Serialises pairs, in order; see `encode`, whose arguments have no leading axis."""
  return [
    encode(image, mask, int(label), int(candidate), mask_bits)
    for image, mask, label, candidate in zip(images, masks, labels, candidates, strict=True)
  ]


def _save(array: np.ndarray, image_format: str, **options: Any) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, image_format, **options)
  return buffer.getvalue()


def decode(record: bytes) -> dict[str, Any]:
  """Reads what `encode` wrote, with masks of 1 or 8 bits.

  Returns:
    `image` `[S, S, 3]` uint8, `mask` `[S, S, 1]` uint8, of which 255 is foreground, `label` and
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
  """For shards that need nothing before they are read."""


@dataclasses.dataclass(frozen=True)
class Split(Sequence[Any]):
  """The records of a split's shards, in order, for random access.

  Attributes:
    paths: the shards, local files.
    lengths: their numbers of records.
    prepare: called with the shards whose records are to be read next, such as to check them.
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
    """Returns where records are, for `read`, once their shards are prepared; see `locate`."""
    located = [self.locate(index) for index in indices]
    self.prepare(sorted({path for path, _ in located}))
    return located

  def locate(self, index: int) -> tuple[str, int]:
    """Returns the shard of a record, and the record's number in it.

    Raises:
      IndexError: the split has no such record.
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
  """Opens a shard once, as long as the same file has this name."""
  # Without a buffer: the records of a batch lie far apart.
  return array_record_module.ArrayRecordReader(path, options="readahead_buffer_size:0")
