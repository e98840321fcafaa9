"""The documents: their commands run, and what they name is there."""

import ast
import dataclasses
import functools
import html.parser
import importlib.util
import pathlib
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys

import ml_collections
import pytest
import tiny_config
from absl import flags
from absl.testing import flagsaver
from whole_runs import ROOT

import unseg_jax
from checkpoints_convert.convert import VARIANT_FORMATS, convert_file
from unseg_jax import default_config, pipeline, predict
from unseg_jax import report as report_command
from unseg_jax.evaluation import benchmarks

importlib.import_module("unseg_jax.main")  # Defines the command's flags.

WRITTEN = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
# How the site links to files outside docs/, which it does not hold.
REPOSITORY = "https://github.com/unseg-jax/unseg-jax/blob/main/"
NOT_RUN = re.compile(r"<!-- not run: \S.{8,} -->")
EXAMPLE = ROOT / "unseg_jax" / "pretrained" / "example"
# What JAX says, and this package does not.
FROM_JAX = {"RESOURCE_EXHAUSTED"}


@dataclasses.dataclass(frozen=True)
class Block:
  """A fenced block.

  Attributes:
    file_name: what the reader is told to save it as.
    reason: the comment right before it, if it is not to run.
  """

  document: str
  line: int
  language: str
  text: str
  file_name: str | None
  reason: str | None


def blocks(path):
  """The fenced commands of a document, in order."""
  lines = path.read_text().splitlines()
  starts = [i for i, line in enumerate(lines) if re.fullmatch(r"\s*```(bash|python)", line)]
  for start in starts:
    end = next(i for i in range(start + 1, len(lines)) if lines[i].strip() == "```")
    before = [line for line in lines[:start] if line.strip()][-1]
    saved = re.search(r"[Ss]ave this as `(\S+)`:", before)
    yield Block(
      document=str(path.relative_to(ROOT)),
      line=start + 1,
      language=lines[start].strip().removeprefix("```"),
      text="\n".join(lines[start + 1 : end]),
      file_name=saved[1] if saved else None,
      reason=before if NOT_RUN.fullmatch(before) else None,
    )


def document_name(path):
  """How a test of a document is called."""
  return str(path.relative_to(ROOT).with_suffix(""))


def commands(text):
  """The commands of a bash block, each split into words."""
  lines = re.sub(r"\\\n\s*", "", text).splitlines()
  return [words for line in lines if (words := shlex.split(line, comments=True))]


# The commands run in this process, in a folder that looks like a checkout in use.


@pytest.fixture(scope="module")
def checkout(finished, generator, tmp_path_factory):
  """Stands in for the checkout: finished runs, a photograph, a checkpoint, a benchmark."""
  folder = tmp_path_factory.mktemp("checkout")
  for name in ("configs", "docs", "unseg_jax", "checkpoints_convert", "benchmarks", "tests"):
    (folder / name).symlink_to(ROOT / name)
  shutil.copytree(finished, folder / "runs" / "dcgan_faces")
  (folder / "runs" / "bigbigan-128").symlink_to(folder / "runs" / "dcgan_faces")
  shutil.copy(EXAMPLE / "astronaut_head.png", folder / "photo.jpg")
  shutil.copy(ROOT / "tests" / "golden" / "dcgan.pth", folder / "weights.tar")
  for benchmark in benchmarks.BENCHMARKS.values():
    for name, source in (
      (benchmark.images, "astronaut_head.png"),
      (benchmark.masks, "astronaut_head_mask.png"),
    ):
      target = folder / "data" / name
      target.mkdir(parents=True)
      shutil.copy(EXAMPLE / source, target / "0001.png")
  return folder


@pytest.fixture
def inside(checkout, generator, compile_quickly, monkeypatch):
  """The function that runs a document's blocks, one after the other, in that folder."""
  monkeypatch.chdir(checkout)
  monkeypatch.syspath_prepend(str(checkout))

  def run(document):
    namespace = {}
    for block in blocks(document):
      if block.file_name:
        pathlib.Path(block.file_name).write_text(block.text)
      elif block.reason is None and block.language == "python":
        where = f"{block.document}, line {block.line}"
        exec(compile("\n" * block.line + block.text, where, "exec"), namespace)
      elif block.reason is None:
        for words in commands(block.text):
          status = run_command(words, generator, monkeypatch)
          assert not status, f"{block.document}, line {block.line}: exit status {status}"

  return run


def run_command(words, generator, monkeypatch):
  """Runs a command of the documents at the tiny size; returns its exit status."""
  while re.fullmatch(r"\w+=\S*", words[0]):  # PYTHONPATH=. is true here already.
    words = words[1:]
  assert words[0] == "python", f"{shlex.join(words)}: no way to run it; say why in a comment"
  if words[1:3] == ["-m", "unseg_jax.main"]:
    return run_main(words[2:], generator, monkeypatch)
  if words[1:3] == ["-m", "unseg_jax.predict"]:
    with flagsaver.flagsaver():
      return predict.main(flags.FLAGS(words[2:]))
  if words[1:3] == ["-m", "unseg_jax.report"]:
    return None if report_command.make(words[3:], None).is_file() else 1
  if words[1:3] == ["-m", "checkpoints_convert.convert"]:
    given = dict(word.removeprefix("--").split("=", 1) for word in words[3:])
    converted = convert_file(given.pop("source"), given.pop("output"), given.pop("format"))
    return 1 if given or not converted.variables else None
  raise AssertionError(f"{shlex.join(words)}: no way to run it; say why in a comment")


def run_main(words, generator, monkeypatch):
  """Runs the stages of a command with the tiny sizes."""
  given = parse_main(words, monkeypatch)
  asked = given["config"]
  directory = pathlib.Path(given["workdir"] or pathlib.Path("runs") / asked.name)
  changed = {word[len("--config.") :].partition("=")[0] for word in words if "--config." in word}
  config = tiny(asked, changed, generator)
  pipeline.run(config, directory, given["stages"] or pipeline.STAGES, given["repair"])


def parse_main(words, monkeypatch):
  """The flags of `python -m unseg_jax.main`, parsed as it parses them."""
  monkeypatch.setattr(sys, "argv", words)  # Where ml_collections looks for overrides.
  with flagsaver.flagsaver():
    assert flags.FLAGS(words)[1:] == []
    return flags.FLAGS.flag_values_dict()


def tiny(asked, changed, generator):
  """The tiny config with what a command changes, as far as that is not larger."""
  config = tiny_config.get_config()
  config.generator = str(generator)
  for name in ("name", "segmenter", "data_root", "evaluate"):
    config[name] = asked[name]
  for name in changed:
    *parents, last = name.split(".")
    source, target = (functools.reduce(lambda c, n: c[n], parents, c) for c in (asked, config))
    value = source[last]
    is_size = isinstance(value, int) and not isinstance(value, bool)
    target[last] = min(value, target[last]) if is_size and value else value
  if config.generate.latents:
    config.generator = asked.generator  # The file holds latents of this one.
  return config


@pytest.mark.parametrize("document", WRITTEN, ids=document_name)
def test_every_command_runs_or_says_why_not(document, inside):
  inside(document)


@pytest.mark.parametrize("document", WRITTEN, ids=document_name)
def test_commands_that_are_not_run_have_flags_and_configs_that_exist(document, monkeypatch):
  monkeypatch.chdir(ROOT)
  for block in blocks(document):
    for words in commands(block.text.replace(" && ", "\n")) if block.reason else ():
      if words[1:3] == ["-m", "unseg_jax.main"]:
        parse_main(words[2:], monkeypatch)
  for variant in re.findall(r"--variant=([\w-]+)", document.read_text()):
    assert variant in VARIANT_FORMATS


def test_the_overrides_of_a_command_reach_its_config(monkeypatch):
  monkeypatch.chdir(ROOT)
  (block,) = [b for b in blocks(ROOT / "README.md") if "config.search.steps=" in b.text]
  (words,) = commands(block.text)
  config = parse_main(words[2:], monkeypatch)["config"]
  assert config.search.steps == 500
  assert config.generate.num_images.train == 20_000


def test_the_two_commands_for_a_fresh_checkout_are_there():
  fresh = "python3 -m venv .venv && . .venv/bin/activate && pip install -c constraints.txt -e "
  texts = [block.text for block in blocks(ROOT / "README.md")]
  assert f"{fresh}. && python -m unseg_jax.main --config=configs/dcgan_faces.py" in texts
  assert f"{fresh}'.[test]' && pytest" in texts


# What the documents name.


def prose(path):
  """A document without its fenced blocks."""
  return re.sub(r"^\s*```.*?^\s*```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("document", WRITTEN, ids=document_name)
def test_every_link_and_picture_is_there(document):
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
  """The headings of a document as GitHub links to them."""
  headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
  return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", WRITTEN, ids=document_name)
def test_every_file_of_the_package_that_is_named_is_there(document):
  pattern = r"\b(?:unseg_jax|configs|benchmarks|checkpoints_convert|tests|colab)/[\w/.]+\.\w+"
  for name in set(re.findall(pattern, document.read_text())):
    if "NAME" not in name:
      assert (ROOT / name).exists(), f"{document.name} names {name}"


def test_the_drawing_names_files_that_are_there_and_says_what_it_shows():
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
  """Imports `package.module.attribute`; raises where there is none."""
  path, _, attribute = name.rpartition(".")
  parent = sys.modules.get(path) or (resolve(path) if "." in path else unseg_jax)
  if hasattr(parent, attribute):
    return getattr(parent, attribute)
  return __import__(name, fromlist=["_"])


def templates():
  """Every string of the sources, with `…` for what is filled in."""
  for folder in ("unseg_jax", "checkpoints_convert"):
    for path in (ROOT / folder).rglob("*.py"):
      for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
          pieces = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
          yield " ".join("".join(map(str, pieces)).split())
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
          yield " ".join(node.value.split())


def test_every_message_in_the_troubleshooting_is_one_that_the_code_gives():
  section = (ROOT / "README.md").read_text().partition("\n## Troubleshooting\n")[2]
  section = section.partition("\n## ")[0]
  messages = [row[1] for row in re.finditer(r"^\| `(.+?)`", section, re.MULTILINE)]
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


# The site.


@pytest.fixture(scope="module")
def site(tmp_path_factory):
  """The folder of the site, built as continuous integration demands it: a warning is an error."""
  folder = tmp_path_factory.mktemp("site")
  command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  return folder


class Page(html.parser.HTMLParser):
  """What a page of the site loads, the identifiers in it, and its text."""

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
  """The addresses that a style sheet loads."""
  found = re.findall(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""", text)
  return [url or imported for url, imported in found]


def test_the_site_asks_no_other_host(site):
  loads = [(path, load) for path in site.rglob("*.html") for load in Page(path).loads]
  for path in [*site.rglob("*.css"), *site.rglob("*.svg")]:
    loads += [(path, load) for load in loaded_by_style(path.read_text(encoding="utf-8"))]
  assert len(loads) > 100
  for path, load in loads:
    assert load.startswith("data:") or not re.match(r"(\w+:)?//", load), f"{path} loads {load}"


def test_the_site_has_nothing_that_makes_its_scripts_ask_another_host(site):
  # The theme's script fetches Mermaid for such blocks, and a repository's stars for such a link.
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
  for argument in ("generator : Generator", "key : Array", "folder : Path"):
    assert argument in direction


def test_formulas_are_drawn_by_the_browser_alone(site):
  text = (site / "how_it_works.html").read_text(encoding="utf-8")
  source = prose(ROOT / "docs" / "how_it_works.md")
  assert text.count("<math") == len(re.findall(r"\$\$?[^$]+\$\$?", source)) > 30
  for left in ("\\(", "\\[", "$$", "\\frac", "\\operatorname"):
    assert left not in text


# The names of the package itself.


@pytest.mark.parametrize(
  "folder",
  sorted(p.parent for p in (ROOT / "unseg_jax").glob("*/__init__.py")),
  ids=lambda p: p.name,
)
def test_the_first_lines_of_a_folder_name_the_files_to_open(folder):
  documentation = ast.get_docstring(ast.parse((folder / "__init__.py").read_text()))
  named = re.findall(r"`(\w+\.py)`", documentation)
  assert named and len(documentation.splitlines()) < 10
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
