"""The documentation builds as a site without warnings and makes no requests to other hosts."""

import html.parser
import pkgutil
import re
import subprocess
import sys

import pytest
from documents import prose
from whole_runs import ROOT

import unseg_jax


@pytest.fixture(scope="module")
def site(tmp_path_factory):
  """The folder of the site, built as in continuous integration, where a warning is an error."""
  folder = tmp_path_factory.mktemp("site")
  command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  return folder


class Page(html.parser.HTMLParser):
  """Returns the addresses that a page loads, its identifiers, and its text."""

  def __init__(self, path):
    super().__init__()
    self.loads, self.ids, self.texts, self.tag = [], set(), [], None
    self.feed(path.read_text(encoding="utf-8"))

  def handle_starttag(self, tag, attrs):
    self.tag = tag
    for name, value in attrs:
      if name in ("src", "srcset", "poster", "data") or (name == "href" and tag != "a"):
        self.loads.append(value)
      if name == "style":
        self.loads += loaded_by_style(value)
      if name == "id":
        self.ids.add(value)

  def handle_data(self, data):
    if self.tag == "style":
      self.loads += loaded_by_style(data)
    self.texts.append(data)

  def handle_endtag(self, tag):
    self.tag = None


def loaded_by_style(text):
  """Returns the addresses that a style sheet loads."""
  addresses = re.findall(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""", text)
  return [url or imported for url, imported in addresses]


def test_the_site_asks_no_other_host(site):
  loads = [(path, load) for path in site.rglob("*.html") for load in Page(path).loads]
  for path in [*site.rglob("*.css"), *site.rglob("*.svg")]:
    loads += [(path, load) for load in loaded_by_style(path.read_text(encoding="utf-8"))]
  assert len(loads) > 100
  for path, load in loads:
    assert load.startswith("data:") or not re.match(r"(\w+:)?//", load), f"{path} loads {load}"


def test_the_site_has_nothing_that_makes_its_scripts_ask_another_host(site):
  # For such blocks, the theme's script fetches Mermaid; for such a link, a repository's stars.
  for path in site.rglob("*.html"):
    text = path.read_text(encoding="utf-8")
    assert 'class="mermaid"' not in text and 'data-md-component="source"' not in text


def test_the_api_pages_have_every_module_and_their_functions_with_arguments(site):
  pages = [Page(path) for path in (site / "api").glob("*.html")]
  ids = set().union(*(page.ids for page in pages))
  for folder in ("unseg_jax", "checkpoints_convert"):
    modules = pkgutil.walk_packages([str(ROOT / folder)], f"{folder}.")
    names = {module.name for module in modules} - {"unseg_jax.configs"}
    missing = sorted(names - ids)
    assert not missing, "name these on a page in docs/api"
  assert {f"unseg_jax.{name}" for name in unseg_jax.__all__ if name != "__version__"} <= ids
  direction = " ".join(" ".join(Page(site / "api" / "direction.html").texts).split())
  assert "unseg_jax.direction.search.search" in ids
  assert "receives state.msgpack as the search goes." in direction
  for argument in ("generator : Generator", "key : Key [ Array", "folder : Path"):
    assert argument in direction


def test_formulas_are_drawn_by_the_browser_alone(site):
  text = (site / "how_it_works.html").read_text(encoding="utf-8")
  source = prose(ROOT / "docs" / "how_it_works.md")
  assert text.count("<math") == len(re.findall(r"\$\$?[^$]+\$\$?", source)) > 30
  for left in ("\\(", "\\[", "$$", "\\frac", "\\operatorname"):
    assert left not in text
