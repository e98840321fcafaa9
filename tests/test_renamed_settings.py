"""Former names of settings work, and one warning gives the current name."""

import importlib.resources
import json
import pathlib
import sys

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags
from whole_runs import contents, make_config, run_main

from unseg_jax import Segmenter, default_config, pipeline
from unseg_jax.artifacts import renamed_settings
from unseg_jax.images import reading

FORMER = {present: former for former, present in renamed_settings.RENAMED["train"].items()}
CONFIG = """
from unseg_jax import default_config

def get_config():
  config = default_config.get_config()
  config.train.backgrounds.share = 0.5
  config.train.backgrounds.kinds = ("plain",)
  config.train.widths = (4, 8)
  config.train.overlap = 0.25
  return config
"""


@pytest.fixture(autouse=True)
def not_announced_yet():
  renamed_settings.announce.cache_clear()


@pytest.fixture
def parse(tmp_path, monkeypatch):
  """Returns the config of that file with overrides, as a command does."""
  path = tmp_path / "config.py"
  path.write_text(CONFIG)

  def parse(*overrides):
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, lock_config=True)
    # ml_collections finds overrides on the command line itself.
    monkeypatch.setattr(sys, "argv", ["main", f"--config={path}", *overrides])
    values(sys.argv)
    return values.config

  return parse


def announced(caplog):
  return sorted(message for message in caplog.messages if "is now called" in message)


def test_a_config_file_with_former_names_sets_the_present_ones(parse, caplog):
  train = parse().train
  assert (train.copy_paste.share, train.copy_paste.kinds) == (0.5, ("plain",))
  assert (train.features, train.iou_weight) == ((4, 8), 0.25)
  assert not set(FORMER.values()) & set(train.keys())
  assert announced(caplog) == [
    "config.train.backgrounds is now called config.train.copy_paste",
    "config.train.overlap is now called config.train.iou_weight",
    "config.train.widths is now called config.train.features",
  ]


def test_command_line_overrides_with_former_names_set_the_present_ones(parse):
  train = parse(
    "--config.train.overlap=0.75",
    "--config.train.backgrounds.share=0.125",
    "--config.train.widths=(2, 4)",
  ).train
  assert (train.iou_weight, train.copy_paste.share) == (0.75, 0.125)
  assert train.features == (2, 4)


def test_several_settings_at_once_may_have_former_names():
  train = default_config.get_config().train
  train.update({"overlap": 0.5}, widths=(4, 8))
  assert (train.iou_weight, train.features) == (0.5, (4, 8))
  assert "overlap" in train and train["overlap"] == 0.5


@pytest.mark.parametrize(
  ("misspelt", "meant"), [("iou_wieght", "iou_weight"), ("featurs", "features")]
)
def test_a_misspelt_name_still_gets_the_one_that_was_meant(misspelt, meant, parse):
  with pytest.raises(AttributeError, match=f'Did you mean "{meant}" instead of "{misspelt}"'):
    parse(f"--config.train.{misspelt}=0.5")


def test_the_command_shows_the_current_name_once(tmp_path):
  done = run_main(
    "--config.train.overlap=0.5", f"--workdir={tmp_path / 'run'}", "--config.generator=missing"
  )
  assert done.returncode == 1
  assert done.stderr.count("config.train.overlap is now called config.train.iou_weight") == 1


def test_a_workdir_with_former_names_continues_and_is_read(
  finished, copied, generator, compile_quickly
):
  assert rename(copied / "config.json", nested=True) == set(FORMER.values())
  for stage in ("train", "evaluate", "report"):
    assert rename(copied / stage / "stage.json", nested=False) == set(FORMER.values())
  before = contents(copied)
  pipeline.run(make_config(generator), copied, tuple(pipeline.STAGES))
  changed = {path for path, state in contents(copied).items() if before.get(path) != state}
  assert changed == {pathlib.Path("config.json")}, "only the settings are written anew"

  rename(copied / "config.json", nested=True)
  example = importlib.resources.files("unseg_jax") / "pretrained/example/astronaut_head.png"
  picture = reading.read_picture(str(example))
  restored, expected = Segmenter.restore(copied), Segmenter.restore(finished)
  np.testing.assert_array_equal(restored(picture), expected(picture))


def rename(path, nested):
  """Gives the settings in a file their former names; returns those."""
  record = json.loads(path.read_text())
  if nested:
    train = record["train"]
    record["train"] = {FORMER.get(name, name): value for name, value in train.items()}
    names = set(record["train"])
  else:
    settings = {}
    for name, value in record["settings"].items():
      section, _, key = name.partition(".")
      first, dot, rest = key.partition(".")
      former = f"{section}.{FORMER.get(first, first)}{dot}{rest}" if section == "train" else name
      settings[former] = value
    record["settings"] = settings
    names = {name.split(".")[1] for name in settings if name.startswith("train.")}
  path.write_text(json.dumps(record))
  return names & set(FORMER.values())
