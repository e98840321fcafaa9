"""The public names of the package."""

import ast
import re
import subprocess
import sys

import pytest
from whole_runs import ROOT

import unseg_jax
from unseg_jax import pipeline


@pytest.mark.parametrize(
  "folder",
  sorted(p.parent for p in (ROOT / "unseg_jax").glob("*/__init__.py")),
  ids=lambda p: p.name,
)
def test_the_first_lines_of_a_folder_name_the_files_to_open(folder):
  documentation = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
  named = re.findall(r"`(\w+\.py)`", documentation)
  assert named
  assert [name for name in named if not (folder / name).is_file()] == []


def test_the_public_names_are_those_of_the_modules():
  for name in unseg_jax.__all__:
    assert name in dir(unseg_jax)
    assert getattr(unseg_jax, name) is not None
  assert unseg_jax.run is pipeline.run
  assert callable(unseg_jax.load_generator) and callable(unseg_jax.Segmenter.restore)
  with pytest.raises(AttributeError, match="no attribute 'nothing'"):
    _ = unseg_jax.nothing


def test_importing_the_package_alone_does_not_import_jax():
  program = "import sys, unseg_jax; sys.exit('jax' in sys.modules)"
  subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_type_checkers_see_the_same_names():
  tree = ast.parse((ROOT / "unseg_jax" / "__init__.py").read_text())
  (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
  seen = {
    alias.asname or alias.name: (node.module, alias.name)
    for node in checked.body
    for alias in node.names
  }
  assert seen == unseg_jax._SOURCES
  assert set(seen) | {"__version__"} == set(unseg_jax.__all__)
