"""A process restarts once with huge pages, unless the user has decided otherwise."""

import os

import pytest
from whole_runs import finish, start_python

from unseg_jax.runtime import huge_pages

CODE = """
import os
from unseg_jax.runtime import huge_pages

huge_pages.use()
print(os.getpid(), os.environ["GLIBC_TUNABLES"])
"""


@pytest.mark.skipif(not huge_pages._are_offered(), reason="the system offers no huge pages")
@pytest.mark.parametrize(
  ("chosen", "expected"), [(None, "hugetlb=1"), ("glibc.malloc.hugetlb=0", "hugetlb=0")]
)
def test_the_process_restarts_unless_the_user_has_decided(monkeypatch, chosen, expected):
  monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
  started = start_python(CODE, **({"GLIBC_TUNABLES": chosen} if chosen else {}))
  done = finish(started)
  assert done.returncode == 0, done.stderr
  assert done.stdout == f"{started.pid} glibc.malloc.{expected}\n"


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
  huge_pages.use()
  assert "GLIBC_TUNABLES" not in os.environ
