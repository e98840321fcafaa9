"""Runs that began on another machine keep the dtype that `auto` meant there."""

import shutil

import pytest
from whole_runs import contents, last_state

from unseg_jax import default_config, pipeline
from unseg_jax.artifacts import stage_records
from unseg_jax.runtime import parallel
from unseg_jax.stages import STAGES, recorded_types
from unseg_jax.storage import whole_files

pytestmark = pytest.mark.usefixtures("compile_quickly")


@pytest.fixture
def auto(config):
  """The tiny config with `auto` dtypes."""
  default_config.choose_types(config)
  return config


@pytest.fixture
def from_accelerator(copied):
  """A finished workdir whose records say that `auto` meant bfloat16."""
  for path in copied.glob(f"*/{stage_records.RECORD}"):
    record = whole_files.read_json(path)
    for name in {"generate.dtype", "train.dtype"} & record["settings"].keys():
      record["settings"][name] = "bfloat16"
    whole_files.write_json(path, record)
  return copied


def announced(caplog):
  return [message for message in caplog.messages if "taken from the results" in message]


@pytest.mark.parametrize("stages", [("report",), ("evaluate",), tuple(STAGES)])
def test_results_of_an_accelerator_are_complete_on_a_cpu(from_accelerator, auto, caplog, stages):
  caplog.set_level("INFO")
  made = {path for path in contents(from_accelerator) if path.parts[0] in STAGES}
  before = contents(from_accelerator)
  pipeline.run(auto, from_accelerator, stages)
  assert announced(caplog) == [
    "config.generate.dtype=bfloat16, config.train.dtype=bfloat16: taken from the results in the "
    "workdir; otherwise, auto would mean float32 on this machine"
  ]
  after = contents(from_accelerator)
  assert all(after[path] == before[path] for path in made)
  assert whole_files.read_json(from_accelerator / "config.json")["train"]["dtype"] == "bfloat16"


def test_results_of_a_cpu_are_complete_on_an_accelerator(copied, auto, caplog, monkeypatch):
  caplog.set_level("INFO")
  monkeypatch.setattr(parallel, "on_accelerator", lambda: True)
  pipeline.run(auto, copied, ("report",))
  assert [message.partition(";")[0] for message in announced(caplog)] == [
    "config.generate.dtype=float32, config.train.dtype=float32: taken from the results in the "
    "workdir"
  ]


def test_a_training_goes_on_in_the_type_in_which_it_began(from_accelerator, auto):
  shutil.rmtree(from_accelerator / "train" / "checkpoints" / "6")
  stage_records.reopen_stage(from_accelerator / "train")
  pipeline.run(auto, from_accelerator, ("train",))
  record = whole_files.read_json(from_accelerator / "train" / stage_records.RECORD)
  assert record["complete"] and record["settings"]["train.dtype"] == "bfloat16"
  assert last_state(from_accelerator)[0] == 6


def test_nothing_is_announced_on_the_same_machine(copied, auto, caplog):
  caplog.set_level("INFO")
  pipeline.run(auto, copied, ("report",))
  assert not announced(caplog)


def test_an_explicit_type_that_differs_is_refused(from_accelerator, auto):
  auto.train.dtype = "float32"
  with pytest.raises(
    stage_records.StageMismatch, match=r"train\.dtype: 'bfloat16' recorded, 'float32' now"
  ):
    pipeline.run(auto, from_accelerator, ("report",))


def test_a_stage_that_would_compute_anew_is_refused(from_accelerator, auto):
  shutil.rmtree(from_accelerator / "generate")
  assert "generate" not in recorded_types(from_accelerator)
  with pytest.raises(
    stage_records.StageMismatch, match=r"generate\.dtype: 'bfloat16' recorded, 'float32' now"
  ):
    pipeline.run(auto, from_accelerator, tuple(STAGES))


def test_candidates_that_ranked_restarts_decide_the_type_of_the_data_set(tmp_path):
  settings = {"search": {"dtype": "float32"}, "generate": {"dtype": "bfloat16"}}
  stage_records.begin_stage(tmp_path / "search", settings)
  assert recorded_types(tmp_path) == {"search": "float32", "generate": "bfloat16"}
