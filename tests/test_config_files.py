"""An error in a config, its variant or a setting is reported in one line with a remedy."""

import subprocess
import sys

import pytest
from whole_runs import ROOT

from unseg_jax import config_files, default_config
from unseg_jax.errors import UserError

FACES = str(ROOT / "configs" / "dcgan_faces.py")


def one_line(caught):
  message = str(caught.value)
  assert "\n" not in message
  return message


@pytest.mark.parametrize(
  ("argument", "expected"),
  [
    ("--config.search.stepz=5", 'config.search has no setting stepz. Did you mean "steps"?'),
    ("--config.serach.steps=5", 'config has no setting serach. Did you mean "search"?'),
    ("--noconfig.train.agument", 'config.train has no setting agument. Did you mean "augment"?'),
    ("--config.report.x=1", "config.report has no setting x. It has pictures, samples."),
    ("--config.generator_options.x=1", "Define it in the config file first"),
    ("--config.search.steps.x=1", "config.search.steps is a value, 300, and has no settings"),
    ("--config.search.steps=many", "many: expected a whole number, such as 300"),
    ("--config.search.steps=2.5", "2.5: expected a whole number, such as 300"),
    ("--config.train.decay=fast", "fast: expected a number, such as 0.2"),
    ("--config.train.augment=maybe", "maybe: expected true or false, such as False"),
  ],
)
def test_a_wrong_override_names_itself_and_what_is_expected(argument, expected):
  with pytest.raises(UserError) as caught:
    config_files.check_overrides(default_config.get_config(), ["--stages=train", argument])
  message = one_line(caught)
  assert message.startswith(argument) and expected in message


@pytest.mark.parametrize(
  "argument",
  [
    "--config.search.steps=5",
    "--config.train.overlap=1",  # A former name.
    "--config.train.features=8,16",
    "--config.train.augment",
    "--noconfig.train.augment",
    "--config.search.learning_rate=1",
    "--config.name=5",
  ],
)
def test_a_right_override_is_taken(argument):
  config_files.check_overrides(default_config.get_config(), [argument, "--", "--config.x=1"])


@pytest.mark.parametrize(
  ("path", "expected"),
  [
    (f"{FACES}:blue", f"this config has no variants; write --config={FACES}"),
    (str(ROOT / "configs" / "biggan.py:77"), "'77': expected one of 128, 256, 512"),
    (str(ROOT / "configs" / "dcgan_fases.py"), f"no such file; expected a config, such as {FACES}"),
    ("nowhere/at_all.py", "no such file; expected a config, such as configs/dcgan_faces.py"),
  ],
)
def test_a_config_that_is_not_there_is_one_line(path, expected):
  with pytest.raises((UserError, FileNotFoundError)) as caught:
    config_files.load(path)
  assert expected in one_line(caught)


@pytest.mark.parametrize(
  ("line", "expected"),
  [
    ('config.report.pictures = ("a.jpg")', "pictures is of another type, expected a tuple, which"),
    ('config.search.steps = "many"', "steps is of another type, expected a whole number"),
    ("config.search.steps = 2.5", "steps is of another type, expected a whole number"),
    ("config.serach.steps = 5", 'Did you mean "search" instead of "serach"?'),
    ("config.train.stepz = 5", 'stepz is not a setting. Did you mean "steps"?'),
    ("config.generate.num_images.trian = 5", 'trian is not a setting. Did you mean "train"?'),
    ('config["report"]["picturs"] = ()', 'picturs is not a setting. Did you mean "pictures"?'),
    ('config.search.update({"stepz": 5})', 'stepz is not a setting. Did you mean "steps"?'),
    ("config.wheel = 5", "wheel is not a setting. unseg_jax/default_config.py lists all settings."),
  ],
)
def test_a_config_that_sets_what_cannot_be_names_its_line(tmp_path, line, expected):
  path = tmp_path / "mine.py"
  path.write_text(
    "from unseg_jax import default_config\n\ndef get_config():\n"
    f"  config = default_config.get_config()\n  {line}\n  return config\n"
  )
  with pytest.raises(UserError) as caught:
    config_files.load(str(path))
  message = one_line(caught)
  assert message.startswith(f"{path}, line 5: {line}: ") and expected in message


def test_a_config_adds_options_of_its_generator_and_published_numbers(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text(
    "from unseg_jax import default_config\n\ndef get_config():\n"
    "  config = default_config.get_config()\n"
    "  config.generator_options.truncation = 0.4\n"
    '  config.evaluate.reference = {"cub": {"iou": 0.71}}\n'
    "  config.evaluate.reference.duts = {'iou': 0.5}\n"
    "  return config\n"
  )
  config = config_files.load(str(path))
  assert config.generator_options.truncation == 0.4
  assert config.evaluate.reference.to_dict() == {"cub": {"iou": 0.71}, "duts": {"iou": 0.5}}


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("config = None", "expected a file that defines get_config()"),
    ("def get_config():\n  pass\n", "returned None, expected a ConfigDict"),
    ("def get_config(variant):\n  pass\n", "expected a variant, as in --config="),
  ],
)
def test_a_file_that_is_no_config_is_one_line(tmp_path, text, expected):
  path = tmp_path / "mine.py"
  path.write_text(text)
  with pytest.raises(UserError) as caught:
    config_files.load(str(path))
  assert expected in one_line(caught)


@pytest.mark.parametrize("error", ["TypeError", "ValueError", "AttributeError", "KeyError"])
def test_a_bug_in_a_config_stays_what_it_is(tmp_path, error):
  path = tmp_path / "mine.py"
  path.write_text(f"def get_config():\n  raise {error}('a bug')\n")
  with pytest.raises(Exception, match="a bug") as caught:
    config_files.load(str(path))
  assert type(caught.value).__name__ == error and not isinstance(caught.value, UserError)


@pytest.mark.parametrize(
  ("section", "name", "value"),
  [
    ("evaluate", "folders", ("birds", "pictures", "masks", True)),
    ("evaluate", "folders", (("birds", "pictures", "masks"),)),
    ("evaluate", "benchmarks", (("cub",),)),
    ("evaluate", "tfds", ("pets", "oxford_iiit_pet", "test", "image", "mask", False)),
    ("train", "data_sets", ("runs/birds", 1.0)),
    ("train", "data_sets", (("runs/birds", True),)),
    ("train", "features", ("64", "128")),
    ("train", "features", (64.0,)),
    ("generate", "area", (0.5,)),
  ],
)
def test_a_tuple_without_its_comma_is_named_with_the_form_expected(section, name, value):
  config = default_config.get_config()
  config[section][name] = value
  with pytest.raises(UserError) as caught:
    default_config.check_tuples(config)
  message = one_line(caught)
  assert message.startswith(f"config.{section}.{name}={value!r}: expected a tuple such as (")


# Typed arguments -> the line on stderr.
TYPED = {
  "--config=configs/dcgan_faces.py --config.search.stepz=5": "error: --config.search.stepz=5: ",
  "--config=configs/biggan.py:77": "error: config variant '77': expected one of 128, 256, 512",
  "--config=configs/dcgan_fases.py": "no such file; expected a config, such as ",
  "": "error: --config is missing. --help lists the flags.",
  "--config=configs/dcgan_faces.py --stagez=train": "error: Unknown command line flag 'stagez'.",
  "--config=configs/dcgan_faces.py --config.evaluate.folders=('a','b','c',True)": (
    "error: config.evaluate.folders=('a', 'b', 'c', True): expected a tuple such as "
  ),
}


def test_the_command_shows_one_line_and_with_debug_all_of_it(tmp_path):
  children = {
    (typed, debug): subprocess.Popen(
      [sys.executable, "-m", "unseg_jax.main", *typed.split(), f"--workdir={tmp_path}", *debug],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for typed, debug in [*((typed, ()) for typed in TYPED), (next(iter(TYPED)), ("--debug",))]
  }
  for (typed, debug), child in children.items():
    output, errors = child.communicate(timeout=120)
    assert child.returncode == 1 and output == "", typed
    if debug:
      assert "Traceback" in errors and "config_files.py" in errors
    else:
      assert errors.count("\n") == 1 and TYPED[typed] in errors, errors
  assert not list(tmp_path.iterdir())
