"""Writes docs/api.md from the docstrings: `python docs/make_api.py`.

The sources are read, not imported: the result is the same on every machine and with every version
of the libraries. A test compares it with the committed file.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "docs" / "api.md"

# In the order of the page: what most programs need, the stages, their parts, files on disk.
MODULES = (
  "unseg_jax.default_config",
  "unseg_jax.generators.base",
  "unseg_jax.generators",
  "unseg_jax.segmenter",
  "unseg_jax.pipeline",
  "unseg_jax.search",
  "unseg_jax.restarts",
  "unseg_jax.synthesis",
  "unseg_jax.on_the_fly",
  "unseg_jax.training",
  "unseg_jax.evaluation",
  "unseg_jax.report",
  "unseg_jax.predict",
  "unseg_jax.directions",
  "unseg_jax.losses",
  "unseg_jax.candidates",
  "unseg_jax.masks",
  "unseg_jax.components",
  "unseg_jax.unet",
  "unseg_jax.augmentation",
  "unseg_jax.metrics",
  "unseg_jax.saliency",
  "unseg_jax.refinement",
  "unseg_jax.pictures",
  "unseg_jax.data.synthetic",
  "unseg_jax.data.latents",
  "unseg_jax.data.folder",
  "unseg_jax.data.benchmarks",
  "unseg_jax.data.tfds_source",
  "unseg_jax.checkpoints",
  "unseg_jax.workdir",
  "unseg_jax.parallel",
  "unseg_jax.preemption",
)
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")
LINE = 100
Definition = ast.FunctionDef | ast.ClassDef


def source_of(module: str) -> Path:
  """The file of a module."""
  path = ROOT.joinpath(*module.split("."))
  return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def public_names() -> dict[str, tuple[str, str]]:
  """The package's own names: each with its module and its name there, as `_SOURCES` has them."""
  for node in ast.parse(source_of("unseg_jax").read_text()).body:
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_SOURCES":
      return ast.literal_eval(node.value)
  raise ValueError(f"{source_of('unseg_jax')} has no _SOURCES; expected the dict of public names")


def page() -> str:
  """The text of docs/api.md."""
  lines = [
    "<!-- Written by docs/make_api.py; change the docstrings, not this file. -->",
    "# Python API",
    "",
    "`import unseg_jax` gives the names below; they are imported when they are first used.",
    "",
    "| name | what it is |",
    "| --- | --- |",
  ]
  documented = {(module, name) for module in MODULES for name, _ in members(parse(module))}
  for public, (module, name) in sorted(public_names().items()):
    # `unseg_jax.generators` hands on what its `base` defines.
    home = module if (module, name) in documented else f"{module}.base"
    summary = first_sentence(dict(members(parse(home)))[name])
    lines.append(f"| [`unseg_jax.{public}`](#{anchor(f'{home}.{name}')}) | {summary} |")
  lines += ["", "The modules, in the order in which a run uses them:", ""]
  lines += [
    f"- [`{module}`](#{anchor(module)}): {first_sentence(parse(module))}" for module in MODULES
  ]
  for module in MODULES:
    lines += ["", f"## {module}", "", *module_lines(module)]
  return "\n".join(lines) + "\n"


def parse(module: str) -> ast.Module:
  """The syntax tree of a module."""
  return ast.parse(source_of(module).read_text())


def members(
  tree: ast.Module | ast.ClassDef,
) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
  """Public functions and classes in the order of the source."""
  for node in tree.body:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
      if not node.name.startswith("_") or node.name == "__call__":
        yield node.name, node


def module_lines(module: str) -> Iterator[str]:
  """The section of one module."""
  tree = parse(module)
  yield from docstring_lines(tree)
  for name, node in members(tree):
    yield from ("", f"### {module}.{name}", "")
    yield from object_lines(node, name)
    if isinstance(node, ast.ClassDef):
      for method_name, method in members(node):
        yield from ("", f"#### {name}.{method_name}", "")
        yield from object_lines(method, method_name)


def object_lines(node: Definition, name: str) -> Iterator[str]:
  """A signature, for functions, and the docstring."""
  if not isinstance(node, ast.ClassDef):
    yield from ("```text", *signature_lines(node, name), "```", "")
  elif node.bases:
    yield from (f"A `{', '.join(map(ast.unparse, node.bases))}`.", "")
  yield from docstring_lines(node)


def signature_lines(node: ast.FunctionDef, name: str) -> list[str]:
  """A function's signature as in the source, on one line, or with a line for each argument."""
  returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
  if len(line := f"{name}({ast.unparse(node.args)}){returns}") <= LINE:
    return [line]
  # A signature is a tuple of arguments to the parser once its brackets are balanced.
  pieces, depth, current = [], 0, ""
  for character in ast.unparse(node.args):
    depth += (character in "([{") - (character in ")]}")
    if character == "," and not depth:
      pieces.append(current.strip())
      current = ""
    else:
      current += character
  return [f"{name}(", *(f"  {piece}," for piece in [*pieces, current.strip()]), f"){returns}"]


def docstring_lines(node: ast.AST) -> Iterator[str]:
  """A docstring as Markdown: its sections as lists, indented code as blocks."""
  section, in_code = None, False
  for line in text_of(node).splitlines():
    header = line.removesuffix(":")
    if line.endswith(":") and header in SECTIONS:
      section = header
      yield from (f"**{header}**", "")
      continue
    if line and not line.startswith(" "):
      section = None
    if section is None:
      is_code = line.startswith("  ")
      if is_code != in_code and line:
        yield "```text" if is_code else "```"
        in_code = is_code
      yield line.removeprefix("  ") if in_code else line
    elif line.startswith("  ") and not line.startswith("   ") and is_item(section, line):
      name, _, text = line.strip().partition(": ")
      yield f"- `{name}`: {text}" if text else f"- {name}"
    else:
      yield f"  {line.strip()}".rstrip()
  if in_code:
    yield "```"


def is_item(section: str, line: str) -> bool:
  """Whether a line begins an entry of a section, such as `name: text`."""
  return section not in ("Returns", "Yields") and bool(re.match(r"  [\w., *]+:( |$)", line))


def text_of(node: ast.AST) -> str:
  """A docstring without its indentation, or nothing."""
  return inspect.cleandoc(ast.get_docstring(node, clean=False) or "")


def first_sentence(node: ast.AST) -> str:
  """The first line of a docstring."""
  return text_of(node).partition("\n")[0]


def anchor(heading: str) -> str:
  """The link that GitHub gives a heading."""
  return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


if __name__ == "__main__":
  OUTPUT.write_text(page(), encoding="utf-8")
  print(f"wrote {OUTPUT}", file=sys.stderr)
