"""The commands in the documents run, and what they name exists."""

import dataclasses
import functools
import importlib.util
import pathlib
import re
import shlex
import shutil
import sys

import pytest
import requests
import tiny_config
from absl import flags
from absl.testing import flagsaver
from documents import WRITTEN, document_name
from ports import free_port
from whole_runs import ROOT

from checkpoints_convert.convert import VARIANT_FORMATS, convert_file
from unseg_jax import export, pipeline, plan, predict
from unseg_jax import report as report_command
from unseg_jax.demo import server
from unseg_jax.evaluation import benchmarks

importlib.import_module("unseg_jax.main")  # Defines the command's flags.

NOT_RUN = re.compile(r"<!-- not run: \S.{8,} -->")
EXAMPLE = ROOT / "unseg_jax" / "pretrained" / "example"


@dataclasses.dataclass(frozen=True)
class Block:
  """A fenced block.

  Attributes:
    file_name: the name under which the reader saves it.
    reason: the comment before it that explains why it is not run.
  """

  document: str
  line: int
  language: str
  text: str
  file_name: str | None
  reason: str | None


def blocks(path):
  """Returns the fenced commands of a document, in order."""
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


def commands(text):
  """Returns the commands of a bash block, each split into words."""
  lines = re.sub(r"\\\n\s*", "", text).splitlines()
  return [words for line in lines if (words := shlex.split(line, comments=True))]


# The commands run in this process, in a folder that looks like a checkout in use.


@pytest.fixture(scope="module")
def checkout(finished, generator, tmp_path_factory):
  """Creates a stand-in for a checkout: finished runs, a photograph, a checkpoint, a benchmark."""
  folder = tmp_path_factory.mktemp("checkout")
  for name in ("configs", "docs", "unseg_jax", "checkpoints_convert", "benchmarks", "tests"):
    (folder / name).symlink_to(ROOT / name)
  shutil.copytree(finished, folder / "runs" / "dcgan_faces")
  (folder / "runs" / "bigbigan-128").symlink_to(folder / "runs" / "dcgan_faces")
  pictures = ("photo.jpg", "photos/one.jpg", "holiday/beach/one.jpg", "data/mine/images/anna.jpg")
  for name in pictures:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(EXAMPLE / "astronaut_head.png", folder / name)
  (folder / "data" / "mine" / "masks").mkdir()
  shutil.copy(EXAMPLE / "astronaut_head_mask.png", folder / "data" / "mine" / "masks" / "anna.png")
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
  """Returns a function that runs a document's blocks in order in that folder."""
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
  while re.fullmatch(r"\w+=\S*", words[0]):  # PYTHONPATH=. is set here already.
    words = words[1:]
  assert words[0] == "python", f"{shlex.join(words)}: no way to run it; say why in a comment"
  if words[1:3] == ["-m", "unseg_jax.main"]:
    return run_main(words[2:], generator, monkeypatch)
  if words[1:3] == ["-m", "unseg_jax.predict"]:
    with flagsaver.flagsaver():
      return predict.main(flags.FLAGS(words[2:]))
  if words[1:3] == ["-m", "unseg_jax.export"]:
    given = dict(word.removeprefix("--").split("=", 1) for word in words[3:])
    made = export.export(given.pop("segmenter"), given.pop("output"), given.pop("format", "onnx"))
    return 1 if given or not made.is_file() else None
  if words[1:3] == ["-m", "unseg_jax.demo"]:
    return run_demo(words[3:])
  if words[1:3] == ["-m", "unseg_jax.report"]:
    return None if report_command.make(words[3:], None).is_file() else 1
  if words[1:3] == ["-m", "checkpoints_convert.convert"]:
    given = dict(word.removeprefix("--").split("=", 1) for word in words[3:])
    converted = convert_file(given.pop("source"), given.pop("output"), given.pop("format"))
    return 1 if given or not converted.variables else None
  raise AssertionError(f"{shlex.join(words)}: no way to run it; say why in a comment")


def run_demo(words):
  """Serves the page of a command on a separate port, and opens it once."""
  given = dict(word.removeprefix("--").split("=", 1) for word in words)
  with server.serve(given.pop("runs", "runs"), "127.0.0.1", free_port()) as page:
    answer = requests.get(page.local_url, timeout=60)
  return 1 if given or "unseg-jax" not in answer.text else None


def run_main(words, generator, monkeypatch):
  """Runs the stages of a command with the tiny sizes, or plans them; returns its exit status."""
  given = parse_main(words, monkeypatch)
  asked = given["config"]
  directory = pathlib.Path(given["workdir"] or pathlib.Path("runs") / asked.name)
  changed = {word[len("--config.") :].partition("=")[0] for word in words if "--config." in word}
  config = tiny(asked, changed, generator)
  if given["plan"] != "false":
    return 1 if plan.make(config, directory, list(pipeline.STAGES), False).problems else 0
  pipeline.run(config, directory, given["stages"] or pipeline.STAGES, given["repair"])
  return 0


def parse_main(words, monkeypatch):
  """Returns the flags of `python -m unseg_jax.main`, parsed as by the command."""
  monkeypatch.setattr(sys, "argv", words)  # ml_collections looks for overrides here.
  with flagsaver.flagsaver():
    assert flags.FLAGS(words)[1:] == []
    return flags.FLAGS.flag_values_dict()


def tiny(asked, changed, generator):
  """Returns the tiny config with a command's changes, unless they make it larger."""
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
    config.generator = asked.generator  # The file contains latents of this generator.
  return config


@pytest.mark.parametrize("document", WRITTEN, ids=document_name)
def test_every_command_runs_or_has_a_reason_not_to(document, inside):
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
  page = ROOT / "docs" / "howto" / "change_settings.md"
  (block,) = [b for b in blocks(page) if "config.search.steps=" in b.text]
  (words,) = commands(block.text)
  config = parse_main(words[2:], monkeypatch)["config"]
  assert config.search.steps == 500
  assert config.generate.num_images.train == 20_000


def test_the_two_commands_for_a_fresh_checkout_are_there():
  fresh = "python3 -m venv .venv && . .venv/bin/activate && pip install -c constraints.txt -e "
  texts = [block.text for block in blocks(ROOT / "README.md")]
  assert f"{fresh}. && python -m unseg_jax.main --config=configs/dcgan_faces.py" in texts
  assert f"{fresh}'.[test]' && pytest" in texts
