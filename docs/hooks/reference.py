"""Writes the tables of docs/reference/ from the code when the site is built.

A page contains a marker, such as `<!-- settings -->`, where its tables go. Settings come from the
source of unseg_jax/default_config.py, whose comments give their meanings. Flags of commands come
from absl's registry, through `--helpxml`. Flags of benchmarks come from their source, since running
them needs packages that a build of the site does without, such as PyTorch.
"""

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("unseg_jax", "checkpoints_convert")


class Row(NamedTuple):
  """A setting or a flag: its name, its default as it is written, and its meaning."""

  name: str
  default: str
  meaning: str


class Section(NamedTuple):
  """A stage or a command: its name, its meaning, and its settings or flags."""

  name: str
  meaning: str
  rows: list[Row]


def on_page_markdown(markdown: str, **_: object) -> str:
  """Replaces the marker on a page by its tables; MkDocs calls this for every page."""
  for marker, make in TABLES.items():
    if marker in markdown:
      markdown = markdown.replace(marker, make())
  return markdown


def settings(source: str) -> list[Section]:
  """Reads the settings from the source of default_config.py.

  Returns:
    A section for each stage, and before them one without a name for the settings that all share.
  """
  lines, comments = source.splitlines(), _comments(source)
  tree = ast.parse(source)
  function = next(
    node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "get_config"
  )
  rows = []
  for node, name in _assigned(function):
    above = node.lineno - 1
    while above in comments and lines[above - 1].lstrip().startswith("#"):
      above -= 1
    documented = [*range(above + 1, node.lineno), node.end_lineno]
    meaning = " ".join(comments[line] for line in documented if line in comments)
    value = ast.get_source_segment(source, node.value) or ""
    rows.append(Row(name, "{}" if value.endswith("ConfigDict()") else value, meaning))
  parents = {row.name.rpartition(".")[0] for row in rows}
  sections = {"": Section("", "", [])}
  for row in rows:
    if row.name not in parents:
      stage = row.name.partition(".")[0] if "." in row.name else ""
      sections[stage].rows.append(row)
    elif "." not in row.name:
      sections[row.name] = Section(row.name, row.meaning, [])
  return list(sections.values())


def _comments(source: str) -> dict[int, str]:
  """Returns the comments by their lines, counted from 1."""
  tokens = tokenize.generate_tokens(io.StringIO(source).readline)
  return {
    token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT
  }


def _assigned(function: ast.FunctionDef) -> Iterator[tuple[ast.Assign, str]]:
  """Yields the assignments to attributes of the config, with their dotted names."""
  aliases = {"config": ""}
  for node in function.body:
    if not isinstance(node, ast.Assign):
      continue
    for target in node.targets:
      if isinstance(target, ast.Attribute):
        path = ast.unparse(target).split(".")
        name = ".".join(filter(None, [aliases[path[0]], *path[1:]]))
        yield node, name
        aliases |= {alias.id: name for alias in node.targets if isinstance(alias, ast.Name)}


def command_modules() -> list[str]:
  """Returns the modules that `python -m` runs."""
  paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
  found = [path for path in paths if '\nif __name__ == "__main__":' in path.read_text()]
  names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in found]
  return sorted(name.removesuffix(".__main__") for name in names)


def commands(modules: Sequence[str]) -> list[Section]:
  """Returns the flags of commands, each of which reads its own flags in a process of its own."""
  environment = os.environ | {"JAX_PLATFORMS": "cpu"}
  children = [
    subprocess.Popen(
      [sys.executable, "-m", module, "--helpxml"],
      cwd=ROOT,
      env=environment,
      stdout=subprocess.PIPE,
      text=True,
    )
    for module in modules
  ]
  outputs = [child.communicate()[0] for child in children]
  return [
    _command(module, ET.fromstring(output)) for module, output in zip(modules, outputs, strict=True)
  ]


def _command(module: str, listed: ET.Element) -> Section:
  rows = []
  for flag in listed.iter("flag"):
    if flag.findtext("key") != "yes":
      continue
    name, meaning = flag.findtext("name", ""), flag.findtext("meaning", "")
    if values := [value.text for value in flag.iter("enum_value")]:
      # absl begins the meaning with the values.
      meaning = f"{meaning.partition('>: ')[2]} One of {', '.join(f'`{each}`' for each in values)}."
    prefix = "--[no]" if flag.findtext("type") == "bool" else "--"
    rows.append(Row(prefix + name, flag.findtext("default", ""), meaning))
  return Section(f"python -m {module}", _summary(listed.findtext("usage", "")), rows)


def benchmarks() -> list[Section]:
  """Returns the flags of the scripts in benchmarks/, read from their source."""
  shared = ast.parse((ROOT / "benchmarks" / "common" / "command_line.py").read_text())
  adders = {node.name: node for node in shared.body if isinstance(node, ast.FunctionDef)}
  sections = []
  for path in sorted((ROOT / "benchmarks").glob("*.py")):
    tree = ast.parse(path.read_text())
    rows = list(_arguments(tree, tree))
    for name in {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}:
      if name in adders:
        rows += _arguments(adders[name], shared)
    summary = _summary(ast.get_docstring(tree) or "")
    sections.append(Section(f"python benchmarks/{path.name}", summary, rows))
  return sections


def _arguments(node: ast.AST, module: ast.Module) -> Iterator[Row]:
  """Yields the flags that argparse gets in a part of a module."""
  constants = {
    target.id: each.value
    for each in module.body
    if isinstance(each, ast.Assign)
    for target in each.targets
    if isinstance(target, ast.Name)
  }
  for call in ast.walk(node):
    if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(".add_argument"):
      given = {keyword.arg or "": keyword.value for keyword in call.keywords}
      name = ast.literal_eval(call.args[0])
      meaning = ast.literal_eval(given["help"]) if "help" in given else ""
      yield Row(name, _default(given, constants), meaning)


def _default(given: Mapping[str, ast.expr], constants: Mapping[str, ast.expr]) -> str:
  """Returns a default as one would type it; it is empty if only the program computes it."""
  node = given.get("default")
  if isinstance(node, ast.Name):
    node = constants.get(node.id)
  if isinstance(node, ast.Call) and ast.unparse(node.func) == "list":
    return "all"  # Of the names that the flag accepts.
  if isinstance(node, ast.Call) and ast.unparse(node.func) == "Path":
    node = node.args[0]
  try:
    value: Any = ast.literal_eval(node) if node else None
  except ValueError:
    return ""
  if isinstance(value, list | tuple):
    return ",".join(map(str, value))
  return "" if value is None else str(value)


def _summary(docstring: str) -> str:
  """Returns the first paragraph of a docstring, on one line."""
  return " ".join(docstring.strip().partition("\n\n")[0].split())


def _settings_page() -> str:
  source = (ROOT / "unseg_jax" / "default_config.py").read_text()
  return "\n\n".join(
    _section(
      f"## Stage `{each.name}`" if each.name else "## All stages",
      each._replace(meaning=each.meaning or "Settings of the run."),
      "Setting",
    )
    for each in settings(source)
  )


def _flags_page(sections: Sequence[Section], level: str) -> str:
  return "\n\n".join(_section(f"{level} `{each.name}`", each, "Flag") for each in sections)


def _section(heading: str, section: Section, kind: str) -> str:
  lines = [heading, "", section.meaning, ""]
  # For docs/assets/extra.css, which stacks the cells on a phone.
  lines += ['<div class="reference" markdown>', "", f"| {kind} | Default | Meaning |", "|-|-|-|"]
  for row in section.rows:
    default = f"`{row.default}`" if row.default else ""
    # A setting can be linked to; flags of several commands share their names.
    anchor = f"{{ #{row.name} }}" if kind == "Setting" else ""
    lines.append(f"| `{row.name}`{anchor} | {default} | {_cell(row.meaning)} |")
  return "\n".join([*lines, "", "</div>"])


def _cell(text: str) -> str:
  """Escapes a text, apart from its code, for a table of Markdown; flags become code."""
  parts = re.split(r"(`[^`]*`)", re.sub(r"(?<![\w`-])(--\w[\w-]*(=\w+)?)", r"`\1`", text))
  return "".join(
    part if part.startswith("`") else re.sub(r"([|*<\[])", r"\\\1", part) for part in parts
  )


TABLES = {
  "<!-- settings -->": _settings_page,
  "<!-- commands -->": lambda: _flags_page(commands(command_modules()), "##"),
  "<!-- benchmarks -->": lambda: _flags_page(benchmarks(), "###"),
}
