"""Helpers of the tests of documents: their list and their prose."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
WRITTEN = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def document_name(path):
  """Returns the test id of a document."""
  return str(path.relative_to(ROOT).with_suffix(""))


def prose(path):
  """Returns a document without its fenced blocks."""
  return re.sub(r"^\s*```.*?^\s*```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
