"""A process restarts once with huge pages, unless the user has decided otherwise."""

import os
import subprocess
import sys

import pytest
from whole_runs import ROOT

from unseg_jax.runtime import huge_pages

MODULE = """
import os, sys
from unseg_jax.runtime import huge_pages

huge_pages.use("started")
print(os.getpid(), sys.argv[1], os.environ.get("GLIBC_TUNABLES"))
"""
OWN = "glibc.malloc.hugetlb=0"


@pytest.mark.skipif(not huge_pages._are_offered(), reason="the system offers no huge pages")
@pytest.mark.parametrize(
  ("start", "chosen", "expected"),
  [
    (("-m", "started"), None, "glibc.malloc.hugetlb=1"),
    (("-u", "-m", "started"), None, "glibc.malloc.hugetlb=1"),
    (("-m", "started"), OWN, OWN),
    # Another program that runs the module would start from its beginning.
    (("-c", "import runpy; runpy.run_module('started', run_name='__main__')"), None, "None"),
  ],
)
def test_the_command_restarts_unless_the_user_has_decided(tmp_path, start, chosen, expected):
  (tmp_path / "started.py").write_text(MODULE)
  environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
  environment |= {"PYTHONPATH": str(ROOT)} | ({"GLIBC_TUNABLES": chosen} if chosen else {})
  streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  command = [sys.executable, *start, "argument"]
  process = subprocess.Popen(command, cwd=tmp_path, env=environment, **streams)
  printed, errors = process.communicate()
  assert process.returncode == 0, errors
  assert printed == f"{process.pid} argument {expected}\n"


@pytest.mark.parametrize(
  ("mode", "library"),
  [
    ("[always] madvise never", "glibc 2.36"),
    ("always madvise [never]", "glibc 2.36"),
    ("always [madvise] never", "glibc 2.31"),
    ("always [madvise] never", None),
    (None, "glibc 2.36"),
  ],
)
def test_nothing_happens_where_it_would_not_help(monkeypatch, tmp_path, mode, library):
  monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
  path = tmp_path / "enabled"
  if mode:
    path.write_text(f"{mode}\n")
  monkeypatch.setattr(huge_pages, "_MODE", path)
  monkeypatch.setattr(os, "confstr", lambda _: library, raising=False)
  monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", "module"])
  monkeypatch.setattr(sys, "argv", ["module.py"])
  huge_pages.use("module")
  assert "GLIBC_TUNABLES" not in os.environ
