"""TFDS reads our records, and we read records of earlier versions."""

import io

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from unseg_jax.synthesis import records, shards


def make_pair(seed, size=24):
  generator = np.random.default_rng(seed)
  small = generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)
  image = np.asarray(Image.fromarray(small).resize((size, size), Image.Resampling.BICUBIC))
  return image, generator.random((size, size)) > 0.6


@pytest.mark.parametrize("mask_bits", [1, 8])
@hypothesis.given(
  seed=strategies.integers(0, 2**32 - 1),
  label=strategies.integers(0, 999),
  candidate=strategies.integers(0, 2**31 - 1),
)
@hypothesis.settings(max_examples=20, deadline=None)
def test_tfds_and_decode_read_the_same_pair(mask_bits, seed, label, candidate):
  image, mask = make_pair(seed)
  record = records.encode(image, mask, label, candidate, mask_bits)
  features = shards.features(24)
  expected = features.deserialize_example_np(record)
  decoded = records.decode(record)
  assert decoded.keys() == expected.keys()
  for name, value in decoded.items():
    np.testing.assert_array_equal(value, expected[name], err_msg=name)
  np.testing.assert_array_equal(decoded["mask"][..., 0], np.where(mask, 255, 0))
  assert np.abs(decoded["image"].astype(int) - image).mean() < 4  # JPEG is lossy.
  assert (decoded["label"], decoded["candidate"]) == (label, candidate)


def test_unfinished_set_of_an_earlier_version_is_finished_byte_for_byte():
  """Earlier versions wrote records through TFDS, with masks of 8 bits."""
  image, mask = make_pair(0)
  features = shards.features(24)
  jpeg, png = io.BytesIO(), io.BytesIO()
  Image.fromarray(image).save(jpeg, "JPEG", quality=95, subsampling=0)
  Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(png, "PNG")
  jpeg.seek(0), png.seek(0)
  example = {"image": jpeg, "mask": png, "label": 3, "candidate": 7}
  written = features.serialize_example(features.encode_example(example))
  written = tf_example_pb2.Example.FromString(written).SerializeToString(deterministic=True)
  assert records.encode(image, mask, 3, 7, mask_bits=8) == written


@hypothesis.given(lengths=strategies.lists(strategies.integers(0, 5), min_size=1, max_size=6))
def test_split_counts_through_its_shards(lengths):
  split = records.Split(tuple(f"shard {i}" for i in range(len(lengths))), tuple(lengths))
  expected = [(f"shard {i}", n) for i, length in enumerate(lengths) for n in range(length)]
  assert [split.locate(i) for i in range(len(split))] == expected
  for outside in (-1, len(expected)):
    with pytest.raises(IndexError, match=f"record {outside}: the split has {len(expected)}"):
      split.locate(outside)


def test_shard_that_is_made_anew_is_read_anew(tmp_path):
  path = shards.shard_path(tmp_path, "train", 0)
  for seed in (0, 1):
    record = records.encode(*make_pair(seed), 0, seed)
    shards.write_shard(path, [record], {})
    assert records.read(str(path), 0) == record
