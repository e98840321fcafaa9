"""What the tests of the documents share: their list, and their prose."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
WRITTEN = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def document_name(path):
  """How a test of a document is called."""
  return str(path.relative_to(ROOT).with_suffix(""))


def prose(path):
  """A document without its fenced blocks."""
  return re.sub(r"^\s*```.*?^\s*```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
