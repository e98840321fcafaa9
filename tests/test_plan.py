"""`--plan` lists what would run and what is missing, and writes nothing."""

import importlib
import re

import pytest
from whole_runs import contents, run_main

from unseg_jax import plan
from unseg_jax.runtime import parallel
from unseg_jax.stages import STAGES

COMMAND = re.compile(r"(?:^ +|make it with: )(python -m .*)$", re.MULTILINE)
# The required files; None if the package contains everything.
CONFIGS = {
  "dcgan_faces": None,
  "mixture": "runs/dcgan_faces",
  "evaluate": "config.segmenter",
  "bigbigan": "checkpoints/",
  "cips": "checkpoints/",
  **{f"biggan:{size}": "checkpoints/" for size in (128, 256, 512)},
  **{
    f"stylegan2:{name}": "checkpoints/"
    for name in ("ffhq", "afhqcat", "afhqdog", "afhqwild", "metfaces", "own", "rosinality")
  },
  **{
    f"studiogan:{name}": "checkpoints/"
    for name in ("sagan", "sngan", "biggan", "contragan", "biggan_deep")
  },
  **{f"selfcond:{name}": "checkpoints/" for name in ("selfcondgan", "uncondgan")},
}


def get_config(name):
  module, _, variant = name.partition(":")
  return importlib.import_module(f"configs.{module}").get_config(*[variant] * bool(variant))


@pytest.mark.parametrize("name", CONFIGS)
def test_of_every_shipped_config_on_a_machine_without_checkpoints(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config, missing = get_config(name), CONFIGS[name]
  planned = plan.make(config, f"runs/{config.name}", list(STAGES))
  text = str(planned)
  assert text.startswith(f"Plan of {config.name} in runs/{config.name}\nDevices: ")
  assert all(f"\n  {stage}: " in text for stage in STAGES)
  assert ("train: training step " in text and "optimizer 107.2 MB" in text) or name == "dcgan_faces"
  assert not list(tmp_path.iterdir())
  if missing is None:
    assert not planned.problems and text.endswith("Nothing is missing, and nothing was written.")
    return
  assert missing in planned.problems[0]
  if missing == "checkpoints/":
    assert COMMAND.findall(text) == [config.convert_command]


def test_the_mixture_names_a_command_for_each_run(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = get_config("mixture")
  planned = plan.make(config, "runs/mixture", list(STAGES))
  assert COMMAND.findall(str(planned)) == config.convert_command.splitlines()
  for command, (run, _) in zip(
    config.convert_command.splitlines(), config.train.data_sets, strict=True
  ):
    made = re.search(r"--config=configs/(\S+)\.py(:\S+)?.* --workdir=(\S+)", command)
    assert get_config(made[1] + (made[2] or "")).name == run.removeprefix("runs/")
    assert made[3] == run
  # These commands do not depend on the user's own runs.
  config.train.data_sets = (("runs/own", 1.0),)
  assert not COMMAND.findall(str(plan.make(config, "runs/mixture", list(STAGES))))


def test_the_evaluation_names_every_benchmark_that_is_missing(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = get_config("evaluate")
  config.segmenter = "pretrained:faces"
  planned = plan.make(config, "runs/evaluate", list(STAGES))
  for name, problem in zip(config.evaluate.benchmarks, planned.problems, strict=True):
    assert f"benchmarks.prepare('{name}'" in problem
  config.evaluate.benchmarks = ()
  assert "lists nothing" in plan.make(config, "runs/evaluate", list(STAGES)).problems[0]


def test_all_that_is_wrong_is_listed_together(config, tmp_path, monkeypatch):
  monkeypatch.setattr(parallel, "device_count", lambda: 8)
  config.search.batch_size, config.train.batch_size, config.train.log_every = 12, 100, 0
  config.generator = str(tmp_path / "absent.safetensors")
  planned = plan.make(config, tmp_path / "run", list(STAGES))
  for problem, expected in zip(
    planned.problems,
    ("train.log_every=0", "search.batch_size=12", "train.batch_size=100", "absent.safetensors"),
    strict=True,
  ):
    assert expected in problem
  assert not (tmp_path / "run").exists()


def test_an_unfinished_run(copied, config):
  (copied / "train" / "stage.json").unlink()
  before = contents(copied)
  planned = plan.make(config, copied, ["train", "evaluate"])
  lines = str(planned).splitlines()
  states = [line.strip().partition(";")[0] for line in lines if re.match(r"  \w+: ", line)]
  assert states[:6] == [
    "search: complete",
    "generate: complete",
    "train: open",
    "adapt: left out, because config.adapt.images names no pictures",
    "evaluate: complete",
    "report: complete",
  ]
  assert not planned.problems and contents(copied) == before


@pytest.mark.slow
def test_compiled_programs_take_more_than_they_are_given(config, tmp_path):
  config.train.features, config.train.copy_paste.share = (2, 4), 0.0
  stages = ["search"]
  given, compiled = (
    str(plan.make(config, tmp_path / "run", stages, compiled)) for compiled in (False, True)
  )
  units = {"kB": 1e3, "MB": 1e6}
  found = [re.search(r"search: search step ([\d.]+) (kB|MB)", text) for text in (given, compiled)]
  sizes = [float(match[1]) * units[match[2]] for match in found]
  assert sizes[0] < sizes[1]


def test_the_command_writes_nothing(generator, tmp_path):
  flags = (f"--config.generator={generator}", f"--workdir={tmp_path / 'run'}", "--plan")
  done = run_main(*flags)
  assert (done.returncode, done.stdout.splitlines()[0]) == (
    0,
    f"Plan of tiny in {tmp_path / 'run'}",
  )
  refused = run_main(*flags, "--config.search.batch_size=0")
  assert refused.returncode == 1 and "config.search.batch_size=0" in refused.stdout
  assert not list(tmp_path.iterdir())
