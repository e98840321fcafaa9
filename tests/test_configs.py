"""Every shipped config loads and names the command that gets its generator."""

import importlib
import re
import sys

import pytest

from checkpoints_convert.convert import FORMATS, VARIANT_FORMATS
from unseg_jax import default_config, pipeline
from unseg_jax.runtime import parallel

PUBLISHED = [
  ("biggan", ("128", "256", "512")),
  ("bigbigan", (None,)),
  ("stylegan2", ("ffhq", "afhqcat", "afhqdog", "afhqwild", "metfaces", "own", "rosinality")),
  ("cips", (None,)),
  (
    "stylegan3",
    tuple(
      f"{kind}-{data}"
      for kind in "tr"
      for data in ("ffhq", "ffhqu", "ffhqu-256", "afhqv2", "metfaces", "metfacesu")
    ),
  ),
  ("studiogan", ("sagan", "sngan", "biggan", "contragan", "biggan_deep")),
  ("selfcond", ("selfcondgan", "uncondgan")),
]
EVERY = [(name, argument) for name, arguments in PUBLISHED for argument in arguments]


def get_config(name, argument=None):
  module = importlib.import_module(f"configs.{name}")
  return module.get_config(*([] if argument is None else [argument]))


@pytest.mark.parametrize(("name", "argument"), EVERY)
def test_a_missing_generator_error_shows_the_command_that_makes_it(name, argument, tmp_path):
  config = get_config(name, argument)
  with pytest.raises(FileNotFoundError) as caught:
    pipeline.run(config, tmp_path / "run", pipeline.STAGES)
  command = str(caught.value).partition("; make it with: ")[2]
  assert command == config.convert_command
  assert command.startswith("python -m checkpoints_convert.convert ")
  assert command.endswith(f"--output={config.generator}")
  if variant := re.search(r"--variant=(\S+)", command):
    assert variant[1] in VARIANT_FORMATS
  else:
    assert re.search(r"--format=(\S+)", command)[1] in FORMATS
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "arguments"), PUBLISHED)
def test_a_config_begins_with_how_to_run_it_and_needs_no_argument(name, arguments):
  config = get_config(name)
  documentation = sys.modules[f"configs.{name}"].__doc__.replace("\\\n  ", "")
  assert f"python -m unseg_jax.main --config=configs/{name}.py" in documentation
  if "--variant" in config.convert_command:
    assert config.convert_command in documentation


def test_a_variant_that_there_is_not_is_refused_with_those_known():
  with pytest.raises(ValueError, match=r"'1024'.*128, 256, 512"):
    get_config("biggan", "1024")


def test_every_setting_of_every_config_is_one_of_the_default_ones():
  known = set(default_config.get_config().to_dict())
  for name, argument in [*EVERY, ("dcgan_faces", None), ("evaluate", None), ("mixture", None)]:
    assert set(get_config(name, argument).to_dict()) == known


def test_the_mixture_begins_with_the_commands_that_make_its_runs(tmp_path, monkeypatch):
  config = get_config("mixture")
  documentation = sys.modules["configs.mixture"].__doc__.replace("\\\n  ", "")
  *makers, last = re.findall(r"unseg_jax\.main --config=configs/(\w+)\.py:?(\w+)?", documentation)
  assert last == ("mixture", "")
  made = [f"runs/{get_config(name, argument or None).name}" for name, argument in makers]
  assert made == [run for run, _ in config.train.data_sets]
  assert get_config(*makers[1]).convert_command in documentation
  monkeypatch.chdir(tmp_path)
  with pytest.raises(FileNotFoundError, match="runs/dcgan_faces is not the workdir of a run"):
    pipeline.run(config, tmp_path / "run", pipeline.STAGES)


@pytest.mark.parametrize(("accelerator", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_the_machine_decides_what_shipped_configs_compute_in(accelerator, expected, monkeypatch):
  monkeypatch.setattr(parallel, "on_accelerator", lambda: accelerator)
  for name, argument in [*EVERY, ("dcgan_faces", None)]:
    config = get_config(name, argument)
    config.lock()
    resolved = default_config.with_types(config)
    assert (resolved.generate.dtype, resolved.train.dtype) == (expected, expected), name
    assert resolved.search.dtype == "float32", "everything else hangs on the direction"


def test_what_is_chosen_by_hand_stays(monkeypatch):
  monkeypatch.setattr(parallel, "on_accelerator", lambda: True)
  config = get_config("bigbigan")
  config.generate.dtype, config.search.dtype = "float32", "auto"
  resolved = default_config.with_types(config)
  assert (resolved.search.dtype, resolved.generate.dtype) == ("bfloat16", "float32")


def test_settings_of_a_generator_of_ones_own_compute_in_float32_everywhere(monkeypatch):
  monkeypatch.setattr(parallel, "on_accelerator", lambda: True)
  resolved = default_config.with_types(default_config.get_config())
  assert {resolved.search.dtype, resolved.generate.dtype, resolved.train.dtype} == {"float32"}
