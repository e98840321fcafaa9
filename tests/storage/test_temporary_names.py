"""A temporary name is valid wherever the final name is."""

import os
from pathlib import Path

import pytest

from unseg_jax.storage import temporary_names, whole_files


@pytest.mark.parametrize("length", [1, 132, 133, 143, 244, 245, 255])
@pytest.mark.parametrize("letter", ["x", "é", os.fsdecode(b"\xe9")])
def test_a_name_of_any_length_is_written(tmp_path, length, letter):
  name = letter * (length // len(os.fsencode(letter)))
  path = tmp_path / (name or "x")
  temporary = temporary_names.beside(path)
  size = len(os.fsencode(path.name))
  assert len(os.fsencode(temporary.name)) <= (143 if size <= 143 else size)
  assert temporary != path and temporary.suffix == temporary_names.ENDING
  whole_files.write_bytes(path, b"contents")
  assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_files_beside_each_other_have_temporary_names_of_their_own():
  paths = [Path(f"{'x' * 200}{number}") for number in range(9)]
  assert len({temporary_names.beside(path) for path in paths}) == 9
