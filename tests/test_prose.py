"""Prose that is read once: no banned term, no long sentence. The rules are in pyproject.toml."""

import ast
import io
import re
import tokenize
import tomllib

import pytest
from documents import ROOT, prose

RULES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["prose"]


def phrases(source):
  """The comments and texts of a module, on one line each, by the line on which they begin."""
  found = []
  for token in tokenize.generate_tokens(io.StringIO(source).readline):
    if token.type == tokenize.COMMENT:
      text, line = token.string.strip("# "), token.start[0]
      if found and found[-1][1] == line - 1:  # The same comment goes on.
        found[-1] = found[-1][0], line, f"{found[-1][2]} {text}"
      else:
        found.append((line, line, text))
  for node in ast.walk(ast.parse(source)):
    # A string without a space is a name.
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
      found.append((node.lineno, node.lineno, node.value))
  return [(first, " ".join(text.split())) for first, _, text in found]


def paragraphs(markdown):
  """The paragraphs and list items of a page, as they are read: code is one word."""
  text = re.sub(r"<!--.*?-->|<[^>]+>", "", markdown, flags=re.DOTALL)
  text = re.sub(r"^\s*(\||#|:::|!\[).*$", "", text, flags=re.MULTILINE)
  text = re.sub(r"`[^`]+`|\$\$.+?\$\$|\$[^$]+\$", "Code", text, flags=re.DOTALL)
  text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
  blocks = re.split(r"\n\s*\n|^\s*(?:[-*+]|\d+\.)\s", text, flags=re.MULTILINE)
  return [" ".join(block.split()) for block in blocks if block.strip()]


def sentences(markdown):
  """The sentences of a page."""
  ends = re.compile(r"""(?<=[.!?])["')*_]*\s+(?=["'(*_]*[A-Z0-9])""")
  return [sentence for each in paragraphs(markdown) for sentence in ends.split(each)]


def banned(text):
  """What to write in place of each banned term of a text."""
  found = [
    (re.search(pattern, text, re.IGNORECASE), instead)
    for pattern, instead in RULES["banned"].items()
  ]
  return [f'"{match[0]}": write {instead}' for match, instead in found if match]


def pages():
  return sorted(path for pattern in RULES["markdown"] for path in ROOT.glob(pattern))


@pytest.mark.parametrize("folder", RULES["code"])
def test_code_has_no_banned_term(folder):
  found = [
    f"{path.relative_to(ROOT)}:{line}: {each}"
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.name != "test_prose.py"  # Its examples break the rules.
    for line, text in phrases(path.read_text())
    for each in banned(text)
  ]
  assert not found, "\n".join(["", *found])


def test_pages_have_no_banned_term():
  found = [
    f"{path.relative_to(ROOT)}: {text[:60]}...: {each}"
    for path in pages()
    for text in paragraphs(prose(path))
    for each in banned(text)
  ]
  assert not found, "\n".join(["", *found])


def test_no_sentence_on_a_page_is_long():
  found = [
    f"{path.relative_to(ROOT)}: {len(sentence.split())} words: {sentence}"
    for path in pages()
    for sentence in sentences(prose(path))
    if len(sentence.split()) > RULES["longest_sentence"]
  ]
  assert not found, "\n".join(["", *found])


@pytest.mark.parametrize(
  "text", ["It said so.", "It is told to stop.", "A file, whole or not at all.", "Whoever asks"]
)
def test_a_banned_term_is_found_wherever_it_stands(text):
  source = f'"""{text}"""\n\n# {text[:6]}\n# {text[6:]}\n\nmessage = f"{{1}} {text}"\n'
  assert [line for line, each in phrases(source) if banned(each)] in ([3, 1, 6], [1, 6])
  assert banned(f"Before. {text}")
  assert not banned("The pictures are told apart. The whole batch is on the device.")


def test_names_and_code_are_no_prose():
  assert phrases('said = ["told", f(whole)]\n') == []
  assert paragraphs("# A told title\n\n| told |\n\nSee `x | told` and [a page](told.md).") == [
    "See Code and a page."
  ]


def test_sentences_end_where_a_reader_ends_them():
  text = 'One is short. "Two" ends (here).\n\n- A point: with 1.5 words\n- Another\n  one\n'
  assert sentences(text) == [
    "One is short.",
    '"Two" ends (here).',
    "A point: with 1.5 words",
    "Another one",
  ]
