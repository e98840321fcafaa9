"""Formulas as MathML, which browsers draw themselves: no script, and no other host is asked."""

import html
import re

from latex2mathml.converter import convert

# What pymdownx.arithmatex makes of $...$ and $$...$$.
FORMULA = re.compile(r'(<(span|div) class="arithmatex">)\\[(\[](.*?)\\[)\]](</\2>)', re.DOTALL)


def on_page_content(content: str, **_: object) -> str:
  """Turns the LaTeX of a page into MathML; MkDocs calls this for every page."""
  return FORMULA.sub(_mathml, content)


def _mathml(formula: re.Match[str]) -> str:
  before, tag, latex, after = formula.groups()
  display = "block" if tag == "div" else "inline"
  return before + convert(html.unescape(latex).strip(), display=display) + after
