"""Images with masks from any prepared TFDS data set, by name and keys."""

import contextlib
import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from unseg_jax.array_types import UInt8
from unseg_jax.errors import InvalidValue
from unseg_jax.evaluation.source import Example, Source, check_same_size
from unseg_jax.images import conversion, masks
from unseg_jax.runtime import host_tensorflow

# Keys under which data sets may store image file names.
FILENAME_KEYS = ("filename", "file_name", "image/filename")


def open_pairs(
  name: str,
  split: str,
  image: str,
  mask: str,
  foreground: Sequence[int] | None = None,
  data_dir: str | Path | None = None,
) -> Source:
  """Opens a split of a prepared TFDS data set.

  Pillow decodes images and masks, as for folders. Like TFDS, this ignores EXIF orientations. A data
  set in a random-access format, such as ArrayRecord, is read without TensorFlow. Other formats are
  read by TensorFlow, on the CPU only.

  Args:
    name: the data set, such as `oxford_iiit_pet`, `coco/2017` or `duts:1.0.0`.
    split: a split, such as `test` or `test[:100]`.
    image: the key of the images: encoded images, or arrays `[H, W, 1 or 3]` uint8.
    mask: the key of the masks: encoded images, or arrays `[H, W]` or `[H, W, C]`, of which the
      first channel is used.
    foreground: the mask values (in a palette, the indices) of the foreground, such as (1,) for
      masks of 0, 1 and 2. None selects values above half of full scale, which is 1 for floats and
      otherwise the result of `masks.full_scale`.
    data_dir: the folder of prepared data sets; None selects TFDS's default.

  Returns:
    The pairs. Their names are the stems of the image file names, or split and position if the data
    set does not store file names. While reading, an unusable record raises a ValueError that names
    the record.

  Raises:
    ValueError: the data set, the split or a key does not exist.
    FileNotFoundError: the data set is not prepared.
    ImportError: its format needs TensorFlow, which is not installed.
  """
  builder, length = _open(name, split, {image: "pictures", mask: "masks"}, data_dir)
  features = builder.info.features
  name_key = next((key for key in FILENAME_KEYS if key in features), None)

  def read(first: int, step: int) -> Iterator[Example]:
    records = _records(builder, split, first, step=step)
    for i, record in zip(itertools.count(first, step), records, strict=False):
      label = f"{split}-{i:06d}"
      if name_key is not None:
        label = PurePosixPath(record[name_key].decode()).stem
      where = f"record {i} ({label}) of {name}, split {split}"
      picture = _picture(record[image], f"{image!r} of {where}")
      target = _mask(record[mask], foreground, f"{mask!r} of {where}")
      check_same_size(picture, target, f"{image!r}", f"{mask!r} of {where}")
      yield label, picture, target

  return Source(length, read)


def open_pictures(
  name: str, split: str, image: str, data_dir: str | Path | None = None
) -> tuple[int, Callable[[int, int], Iterator[UInt8[np.ndarray, "_ _ 3"]]]]:
  """Opens the images of a split without masks; see `open_pairs`.

  Returns:
    The number of images, and a function that yields those from one index up to another.
  """
  builder, length = _open(name, split, {image: "pictures"}, data_dir)

  def read(start: int, stop: int) -> Iterator[np.ndarray]:
    for i, record in enumerate(_records(builder, split, start, stop), start):
      yield _picture(record[image], f"{image!r} of record {i} of {name}, split {split}")

  return length, read


def _open(
  name: str, split: str, purposes: Mapping[str, str], data_dir: str | Path | None
) -> tuple[tfds.core.DatasetBuilder, int]:
  """Opens a data set and counts a split's records; `purposes` maps its keys to what they hold."""
  builder = _builder(name, data_dir)
  features = builder.info.features
  for key, purpose in purposes.items():
    if key not in features:
      known = ", ".join(f"{key} ({type(features[key]).__name__})" for key in sorted(features))
      raise InvalidValue(f"{name} has no key {key!r} for {purpose}; its keys are: {known}.")
  if not _has_random_access(builder):
    host_tensorflow.check_installed(_reading(builder))
  try:
    return builder, builder.info.splits[split].num_examples
  except (KeyError, ValueError) as error:
    known = ", ".join(builder.info.splits)
    raise InvalidValue(
      f"{name} has no split {split!r}; expected one of {known}, or a part of one, such as "
      f"{next(iter(builder.info.splits))}[:100]."
    ) from error


def _builder(name: str, data_dir: str | Path | None) -> tfds.core.DatasetBuilder:
  try:
    builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
  except tfds.core.DatasetNotFoundError as error:
    raise InvalidValue(
      f"TFDS has no data set {name!r}, neither registered nor prepared in "
      f"{data_dir or 'its own folder'}; check its spelling and the folder."
    ) from error
  if not (builder.data_path / "dataset_info.json").exists():
    raise FileNotFoundError(
      f"the TFDS data set {name} is not prepared in {data_dir or 'its own folder'}; prepare it "
      f"once with tfds.builder({name!r}, data_dir=..., file_format='array_record')"
      ".download_and_prepare(), which needs TensorFlow: pip install 'unseg-jax[tensorflow]'."
    )
  return builder


def _has_random_access(builder: tfds.core.DatasetBuilder) -> bool:
  formats = tfds.core.FileFormat.with_random_access()
  return not formats.isdisjoint(builder.info.available_file_formats())


def _reading(builder: tfds.core.DatasetBuilder) -> str:
  """What needs TensorFlow, for its absence."""
  stored = ", ".join(sorted(each.value for each in builder.info.available_file_formats()))
  return f"reading the TFDS data set {builder.name}, stored as {stored},"


def _records(
  builder: tfds.core.DatasetBuilder,
  split: str,
  start: int = 0,
  stop: int | None = None,
  step: int = 1,
) -> Iterator[Mapping[str, Any]]:
  decoders = {
    key: tfds.decode.SkipDecoding()
    for key, feature in builder.info.features.items()
    if isinstance(feature, tfds.features.Image) and feature.np_dtype in (np.uint8, np.uint16)
  }
  if _has_random_access(builder):
    source = builder.as_data_source(split, decoders=decoders)
    for i in range(len(source))[start:stop:step]:
      yield source[i]
  else:
    records = _records_by_tensorflow(builder, split, decoders)
    yield from itertools.islice(records, start, stop, step)


def _records_by_tensorflow(
  builder: tfds.core.DatasetBuilder, split: str, decoders: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
  host_tensorflow.import_tensorflow(_reading(builder))
  yield from tfds.as_numpy(builder.as_dataset(split=split, decoders=decoders))


def _picture(value: object, where: str) -> np.ndarray:
  if isinstance(value, bytes):
    with _naming(where), Image.open(io.BytesIO(value)) as image:
      return conversion.to_rgb(image, where, turn=False)
  array = np.asarray(value)
  if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3):
    raise InvalidValue(
      f"{where} is {array.dtype} of shape {array.shape}; expected a picture, uint8 [H, W, 1 or 3]"
    )
  return np.broadcast_to(array, (*array.shape[:2], 3))


def _mask(value: object, foreground: Sequence[int] | None, where: str) -> np.ndarray:
  with _naming(where):
    if isinstance(value, bytes):
      with Image.open(io.BytesIO(value)) as image:
        if foreground is None:
          return masks.levels(image, where, turn=False).foreground
        value = np.array(image)
    array = np.asarray(value)
    if array.ndim == 3:
      array = array[..., 0]
    if array.ndim != 2:
      raise InvalidValue(f"it has shape {array.shape}; expected a mask [H, W] or [H, W, C]")
    if foreground is not None:
      return np.isin(array, list(foreground))
    if not np.issubdtype(array.dtype, np.integer):
      return array > 0.5
    return masks.Levels(array, masks.full_scale(array)).foreground


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
  """Turns any error about a record into an InvalidValue that names the record."""
  try:
    yield
  except masks.ClassNumbers as error:
    raise InvalidValue(
      f"{where} cannot be used: {error}; or set foreground to the class numbers of the foreground, "
      "such as foreground=(1,)"
    ) from error
  except Exception as error:  # Decoders raise errors of nearly every type for damaged files.
    raise InvalidValue(f"{where} cannot be used: {error}") from error
