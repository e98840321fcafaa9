"""Computations run without the libraries that read or write files."""

import os
import subprocess
import sys

import computing_alone
import pytest
from whole_runs import ROOT


@pytest.mark.parametrize("name", computing_alone.PROGRAMS)
def test_runs_without_libraries_for_files(name):
  command = [sys.executable, ROOT / "tests" / "computing_alone.py", "--hide", name]
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
  done = subprocess.run(command, env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert done.stdout == f"{name}: computes\n"


def test_the_libraries_are_hidden_indeed():
  hide = computing_alone.Hide()
  for name in ("orbax", "orbax.checkpoint", "tqdm"):
    with pytest.raises(ModuleNotFoundError):
      hide.find_spec(name)
  assert hide.find_spec("numpy") is None
