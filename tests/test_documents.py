"""What the documents name exists: links, files, settings, names and messages."""

import ast
import importlib.util
import re
import sys

import ml_collections
import pytest
from documents import WRITTEN, document_name, prose
from whole_runs import ROOT

import unseg_jax
from unseg_jax import default_config

# The site's links to files outside docs/.
REPOSITORY = "https://github.com/unseg-jax/unseg-jax/blob/main/"
# Messages of JAX, not of this package.
FROM_JAX = {"RESOURCE_EXHAUSTED"}


@pytest.mark.parametrize("document", WRITTEN, ids=document_name)
def test_every_link_and_picture_exists(document):
  for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
    file_name, _, heading = target.partition("#")
    if target.startswith(REPOSITORY):
      path = ROOT / file_name.removeprefix(REPOSITORY)
    elif re.match(r"\w+:", target):
      continue
    else:
      path = (document.parent / file_name).resolve() if file_name else document
    assert path.exists(), f"{document.name} links to {target}"
    if heading:
      assert heading in anchors(path), f"{document.name} links to {target}"


def anchors(path):
  """Returns the anchors of a document's headings as on GitHub."""
  headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
  return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", WRITTEN, ids=document_name)
def test_every_file_of_the_package_that_is_named_exists(document):
  pattern = r"\b(?:unseg_jax|configs|benchmarks|checkpoints_convert|tests|colab)/[\w/.]+\.\w+"
  for name in set(re.findall(pattern, document.read_text())):
    if "NAME" not in name:
      assert (ROOT / name).exists(), f"{document.name} names {name}"


def test_the_drawing_names_existing_files_and_has_a_description():
  drawing = (ROOT / "docs" / "architecture.svg").read_text()
  names = re.findall(r">(\w+/\w+\.py)<", drawing)
  assert len(names) == 7
  for name in names:
    assert name == "configs/NAME.py" or (ROOT / "unseg_jax" / name).exists(), name
  assert re.search("<title id=.+</title>", drawing) and re.search("<desc id=.+</desc>", drawing)


@pytest.mark.parametrize("document", WRITTEN, ids=document_name)
def test_every_setting_that_is_named_exists(document):
  config = default_config.get_config()
  for name in set(re.findall(r"\bconfig((?:\.[a-z_]+)+)", document.read_text())):
    if name == ".json" or name.startswith((".generator_options.", ".evaluate.reference.")):
      continue
    node = config
    for part in name.strip(".").split("."):
      known = isinstance(node, ml_collections.ConfigDict) and part in node
      assert known, f"{document.name}: there is no config{name}"
      node = node[part]


@pytest.mark.parametrize("document", WRITTEN, ids=document_name)
def test_every_dotted_name_exists(document):
  for name in set(re.findall(r"`(unseg_jax(?:\.\w+)+)`", prose(document))):
    resolve(name)


def resolve(name):
  """Imports `package.module.attribute`; raises an error if it does not exist."""
  path, _, attribute = name.rpartition(".")
  parent = sys.modules.get(path) or (resolve(path) if "." in path else unseg_jax)
  if hasattr(parent, attribute):
    return getattr(parent, attribute)
  return __import__(name, fromlist=["_"])


def templates():
  """Returns every string of the sources, with `…` for values of f-strings."""
  for folder in ("unseg_jax", "checkpoints_convert"):
    for path in (ROOT / folder).rglob("*.py"):
      for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
          pieces = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
          yield " ".join("".join(map(str, pieces)).split())
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
          yield " ".join(node.value.split())


def test_every_message_in_the_troubleshooting_is_one_that_the_code_gives():
  page = (ROOT / "docs" / "howto" / "troubleshooting.md").read_text()
  messages = [row[1] for row in re.finditer(r"^\| `(.+?)`", page, re.MULTILINE)]
  assert len(messages) > 15
  known = list(templates())
  for message in messages:
    if message not in FROM_JAX:
      pattern = re.compile(".*?".join(map(re.escape, message.split("…"))))
      assert any(map(pattern.search, known)), f"no error says {message!r}"


@pytest.mark.parametrize("document", WRITTEN, ids=document_name)
def test_every_module_that_a_document_imports_or_runs_exists(document):
  pattern = r"(?:python -m|from|import) ((?:unseg_jax|checkpoints_convert)[\w.]*)"
  for name in set(re.findall(pattern, document.read_text())):
    assert importlib.util.find_spec(name), f"{document.name} names the module {name}"
