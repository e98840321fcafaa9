"""A run and what follows it do without TensorFlow, which only an extra brings."""

import event_files
import numpy as np
import pytest
from PIL import Image
from whole_runs import run_each

# As if it were not installed: importing it fails, and looking for it finds none.
HIDE = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name == "tensorflow" else find(name, *rest)
"""

READ_PAIRS = """
import sys
import tensorflow_datasets as tfds

pairs = tfds.builder_from_directory("FOLDER/run/generate").as_data_source("train")
print(len(pairs), pairs[0]["image"].shape, pairs[0]["mask"].shape)
"""


@pytest.fixture(scope="module")
def shown(generator, tmp_path_factory, compile_quickly):
  """A folder, and the exit status and the output of each command in it, by name."""
  folder = tmp_path_factory.mktemp("without")
  for kind, shape in (("images", (40, 50, 3)), ("masks", (40, 50))):
    (folder / kind).mkdir()
    pixels = np.random.default_rng(0).integers(0, 2, shape, np.uint8) * 255
    Image.fromarray(pixels).save(folder / kind / "one.png")
  (folder / "read_pairs.py").write_text(READ_PAIRS.replace("FOLDER", str(folder)))
  commands = {
    "main": (
      "-m unseg_jax.main",
      "--config=tests/tiny_config.py",
      "--workdir=FOLDER/run",
      f"--config.generator={generator}",
      "--config.evaluate.folders=(('own','FOLDER/images','FOLDER/masks',False),)",
    ),
    "pairs": (f"{folder}/read_pairs.py",),
    "report": ("-m unseg_jax.report", "FOLDER/run"),
    "predict": (
      "-m unseg_jax.predict",
      "--segmenter=FOLDER/run",
      "--input=FOLDER/images",
      "--output=FOLDER/predicted",
    ),
  }
  for name in ("onnx", "stablehlo", "tflite"):
    output = (f"--output=FOLDER/made.{name}", f"--format={name}")
    commands[name] = ("-m unseg_jax.export", "--segmenter=FOLDER/run", *output)
  cases = [(command, arguments, "cpu") for command, *arguments in commands.values()]
  return folder, dict(zip(commands, run_each(cases, folder, HIDE), strict=True))


@pytest.mark.parametrize("name", ["main", "pairs", "report", "predict", "onnx", "stablehlo"])
def test_the_command_succeeds(shown, name):
  status, output = shown[1][name]
  assert status == 0, output


def test_the_run_leaves_events_scores_and_a_report(shown):
  folder, outcomes = shown
  events = folder / "run" / "events"
  assert event_files.curves(events / "train")["train/training/loss"]
  assert event_files.pictures(events / "train") == {"train/validation/masks": [2, 4, 6]}
  assert "own" in (folder / "run" / "metrics.json").read_text()
  assert (folder / "run" / "report.html").exists()
  assert outcomes["pairs"][1] == "40 (64, 64, 3) (64, 64, 1)\n"


def test_what_needs_tensorflow_asks_for_its_extra_in_one_line(shown):
  folder, outcomes = shown
  status, output = outcomes["tflite"]
  assert (status, output.count("\n")) == (1, 1)
  assert output.startswith("error: the format tflite needs TensorFlow, which is not installed;")
  assert "unseg-jax[tensorflow]" in output
  assert not list(folder.glob("made.tflite*"))
