"""The documentation builds as a site without warnings and makes no requests to other hosts."""

import ast
import html
import html.parser
import json
import pkgutil
import re
import subprocess
import sys

import pytest
from documents import prose
from whole_runs import ROOT

import unseg_jax
from unseg_jax import default_config
from unseg_jax.artifacts.stage_records import flatten
from unseg_jax.stages import STAGES


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
  assert "receives state.msgpack during the search." in direction
  for argument in ("generator : Generator", "key : Key [ Array", "folder : Path"):
    assert argument in direction


def test_formulas_are_drawn_by_the_browser_alone(site):
  text = (site / "how_it_works.html").read_text(encoding="utf-8")
  source = prose(ROOT / "docs" / "how_it_works.md")
  assert text.count("<math") == len(re.findall(r"\$\$?[^$]+\$\$?", source)) > 30
  for left in ("\\(", "\\[", "$$", "\\frac", "\\operatorname"):
    assert left not in text


def tables(path):
  """The rows of the table below each heading of a page, as texts."""
  found = {}
  for part in re.split(r"<h[23] ", path.read_text(encoding="utf-8"))[1:]:
    heading = text_of(re.match(r"[^>]*>(.*?)<a", part, re.DOTALL)[1])
    rows = re.findall(r"<tr>(.*?)</tr>", part, re.DOTALL)
    cells = [
      [text_of(cell) for cell in re.findall(r"<td>(.*?)</td>", row, re.DOTALL)] for row in rows
    ]
    found[heading] = [row for row in cells if row]
  return found


def text_of(element):
  return html.unescape(re.sub(r"<[^>]+>", "", element)).strip()


def test_every_setting_is_on_its_page_with_its_stage_default_and_meaning(site):
  found = tables(site / "reference" / "settings.html")
  assert set(found) == {"All stages", *(f"Stage {stage}" for stage in STAGES)}
  config = default_config.get_config().to_dict()
  expected = flatten(config) | {"generator_options": {}, "evaluate.reference": {}}
  shown = {}
  for heading, rows in found.items():
    for name, default, meaning in rows:
      stage = name.partition(".")[0] if "." in name else None
      assert heading == (f"Stage {stage}" if stage else "All stages")
      assert re.search(r"\w.*\.$", meaning), f"{name} needs a comment in default_config.py"
      shown[name] = json.loads(json.dumps(ast.literal_eval(default)))
  assert shown == expected


def test_every_flag_of_every_command_is_on_its_page_with_its_meaning(site):
  found = tables(site / "reference" / "commands.html")
  commands = [name for name in found if name.startswith("python -m ")]
  assert len(commands) == 7
  runtime = ROOT / "unseg_jax" / "runtime"
  for command in commands:
    module = ROOT / command.removeprefix("python -m ").replace(".", "/")
    path = module / "__main__.py" if module.is_dir() else module.with_suffix(".py")
    sources = [path.read_text(), (runtime / "commands.py").read_text()]
    if "process_flags" in sources[0]:
      sources.append((runtime / "process_flags.py").read_text())
    defined = re.findall(r'(?:DEFINE_\w+|EnumFlag)\(\s*"(\w+)"', "".join(sources))
    assert {re.sub(r"^--(\[no\])?", "", row[0]) for row in found[command]} == set(defined), command
  for name, rows in found.items():
    assert name == "Benchmarks" or rows
    for flag, _, meaning in rows:
      assert re.search(r"\w.*\.$", meaning), f"{flag} of {name} needs a help text"


def test_every_flag_of_every_benchmark_is_on_the_page(site):
  found = tables(site / "reference" / "commands.html")
  for path in (ROOT / "benchmarks").glob("*.py"):
    source = path.read_text()
    defined = re.findall(r'add_argument\(\s*"(--\w+)"', source)
    defined += ["--divisor"] if "add_divisor" in source else []
    shown = [flag for flag, *_ in found[f"python benchmarks/{path.name}"]]
    assert sorted(shown) == sorted(defined) and defined, path.name
