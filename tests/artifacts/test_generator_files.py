"""Generator files restore what was saved, or report what is wrong."""

import os
import re

import jax
import numpy as np
import pytest
import safetensors.numpy

from unseg_jax.artifacts import generator_files


def small_generator(**changes):
  values = {
    "architecture": "dcgan",
    "config": {"latent_size": 2, "widths": [3]},
    "variables": {
      "params": {
        # A transposed view, which is not in C order.
        "project": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3).T, "bias": np.ones(2)},
        "gain": np.float32(0.5),
      }
    },
    "source_sha256": "0" * 64,
  }
  return generator_files.GeneratorFile(**(values | changes))


def test_a_generator_file_gives_back_what_was_saved(tmp_path):
  saved = small_generator()
  generator_files.save_generator(tmp_path / "new_folder" / "a.safetensors", saved)
  restored = generator_files.read_generator(tmp_path / "new_folder" / "a.safetensors")
  assert (restored.architecture, restored.config, restored.source_sha256) == (
    saved.architecture,
    saved.config,
    saved.source_sha256,
  )
  assert jax.tree.structure(restored.variables) == jax.tree.structure(saved.variables)
  for got, expected in zip(
    jax.tree.leaves(restored.variables), jax.tree.leaves(saved.variables), strict=True
  ):
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(got, expected)


def test_the_same_generator_always_gives_the_same_bytes(tmp_path):
  # safetensors shuffles its metadata at every call; four equal files by chance are rare.
  for i in range(4):
    generator_files.save_generator(tmp_path / str(i), small_generator())
  assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


@pytest.mark.parametrize("existed", [False, True])
def test_a_write_that_fails_midway_leaves_what_was_there(tmp_path, monkeypatch, existed):
  path = tmp_path / "a.safetensors"
  if existed:
    path.write_bytes(b"the old one")

  def fail(_):
    raise OSError("no space left on device")

  monkeypatch.setattr(os, "fsync", fail)
  with pytest.raises(OSError, match="no space left"):
    generator_files.save_generator(path, small_generator())
  assert [p.read_bytes() for p in tmp_path.iterdir()] == ([b"the old one"] if existed else [])


@pytest.mark.parametrize(
  ("variables", "message"),
  [
    ({"params": {"bias": np.array([1, np.nan])}}, "array params/bias holds NaN or infinity"),
    ({}, "no arrays, expected at least one"),
  ],
)
def test_a_useless_generator_is_not_saved(tmp_path, variables, message):
  with pytest.raises(ValueError, match=message):
    generator_files.save_generator(tmp_path / "a", small_generator(variables=variables))
  assert not list(tmp_path.iterdir())


def test_a_missing_generator_file_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"gone\.safetensors.*checkpoints_convert\.convert"):
    generator_files.read_generator(tmp_path / "gone.safetensors")


@pytest.mark.parametrize(
  "damage",
  [lambda data: data[:-4], lambda data: data[:20], lambda data: b"", lambda data: b"PK" * 9],
)
def test_a_truncated_or_other_file_is_refused(tmp_path, damage):
  path = tmp_path / "a.safetensors"
  generator_files.save_generator(path, small_generator())
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(ValueError, match=r"a\.safetensors is not a complete safetensors.*convert"):
    generator_files.read_generator(path)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"config": None, "source_sha256": None}, "its metadata lacks config, source_sha256; convert"),
    ({"format_version": "2"}, "format_version '2', expected '1': upgrade"),
    ({"config": "{"}, "config '{' in its metadata, expected a JSON object"),
    ({"config": "[1]"}, "expected a JSON object"),
    ({"array": np.full(2, np.inf)}, "is damaged: the array array holds NaN or infinity"),
  ],
)
def test_a_safetensors_file_of_other_content_is_refused(tmp_path, changes, message):
  metadata = {"architecture": "a", "config": "{}", "format_version": "1", "source_sha256": "0"}
  array = changes.pop("array", np.ones(2))
  metadata = {k: v for k, v in (metadata | changes).items() if v is not None}
  path = tmp_path / "a.safetensors"
  path.write_bytes(safetensors.numpy.save({"array": array}, metadata))
  with pytest.raises(ValueError, match=re.escape(message)) as error:
    generator_files.read_generator(path)
  assert str(path) in str(error.value)
