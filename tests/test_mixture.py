"""Training one segmenter on the data sets of several finished runs, through the full pipeline."""

import logging
import shutil

import jax
import numpy as np
import pytest
from whole_runs import GOLDEN, contents, last_state, make_config, run_command

from checkpoints_convert.convert import convert_file
from unseg_jax import pipeline
from unseg_jax.artifacts import stage_records
from unseg_jax.errors import UserError
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.segmentation import batches, data_sets, step
from unseg_jax.storage import whole_files
from unseg_jax.synthesis import shards

pytestmark = pytest.mark.usefixtures("compile_quickly")
STAGES = tuple(pipeline.STAGES)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
  """A finished data set with another architecture and image size than that of `finished`."""
  folder = tmp_path_factory.mktemp("other")
  convert_file(GOLDEN / "uncond.pth", folder / "uncond.safetensors", "selfcond")
  config = make_config(folder / "uncond.safetensors")
  config.name = "uncond"
  config.search.update({"steps": 2, "batch_size": 2})
  config.generate.update({"chunk": 4, "shard_candidates": 8})
  config.generate.num_images.update({"train": 16, "validation": 4, "test": 4})
  pipeline.run(config, folder / "run", ("search", "generate"))
  return folder / "run"


def mixture(*listed):
  config = make_config("")
  config.name = "mixture"
  config.train.data_sets = tuple((str(run), weight) for run, weight in listed)
  return config


@pytest.fixture(scope="module")
def mixed(finished, other, tmp_path_factory):
  """The workdir of a complete run on both data sets."""
  folder = tmp_path_factory.mktemp("mixed")
  pipeline.run(mixture((finished, 3.0), (other, 1.0)), folder, STAGES)
  return folder


class TestMixture:
  def test_leaves_a_segmenter_and_a_row_for_the_held_out_pairs_of_each_run(self, mixed):
    scores = whole_files.read_json(mixed / "metrics.json")
    assert list(scores) == ["synthetic tiny", "synthetic uncond"]
    assert Segmenter.restore(mixed)(np.zeros((64, 80, 3), np.uint8)).shape == (64, 80)
    report = (mixed / "report.html").read_text()
    assert "synthetic tiny" in report and "synthetic uncond" in report
    assert not (mixed / "search").exists() and not (mixed / "generate").exists()

  def test_remembers_what_it_was_trained_on_and_no_place(self, mixed, finished, other):
    settings = whole_files.read_json(mixed / "train" / "stage.json")["settings"]
    for number, (name, run, weight) in enumerate((("tiny", finished, 3), ("uncond", other, 1)), 1):
      assert settings[f"train.data_sets.{name}.number"] == number
      assert settings[f"train.data_sets.{name}.weight"] == weight
      sha256 = data_sets.fingerprint(run / "generate")
      assert settings[f"train.data_sets.{name}.sha256"] == sha256
    assert not any(str(run) in str(settings) for run in (finished, other))

  def test_goes_on_with_moved_sets_and_refuses_changed_ones(
    self, mixed, finished, other, tmp_path, caplog
  ):
    run, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(mixed, run)
    shutil.copytree(other, moved)
    config = mixture((finished, 3.0), (moved, 1.0))
    caplog.set_level(logging.INFO, "unseg_jax")
    pipeline.run(config, run, STAGES)
    assert "stages search and generate: left out" in caplog.text
    assert "stage train: complete" in caplog.text
    before = contents(run)
    counts = next((moved / "generate" / "counts").glob("*-train*.json"))
    whole_files.write_json(counts, whole_files.read_json(counts) | {"sha256": "0" * 64})
    with pytest.raises(stage_records.StageMismatch, match=r"train\.data_sets\.uncond\.sha256: "):
      pipeline.run(config, run, STAGES)
    with pytest.raises(
      stage_records.StageMismatch, match=r"data_sets\.tiny\.weight: 3\.0 recorded, 2\.0"
    ):
      pipeline.run(mixture((finished, 2.0), (other, 1.0)), run, STAGES)
    assert contents(run) == before

  def test_batches_hold_the_weights_shares_and_are_a_function_of_their_number(
    self, finished, other, config
  ):
    sources = [shards.read(run / "generate", "train") for run in (finished, other)]
    mixed = batches.order(sources, [3.0, 1.0], config.train, 7)
    again = batches.order(sources, [3.0, 1.0], config.train, 7)
    for t in (0, 3, 50):
      assert (mixed[t] >= len(sources[0])).sum() == 2
      np.testing.assert_array_equal(mixed[t], again[t])

  def test_batches_are_the_same_by_any_number_of_workers_and_after_any_step(
    self, finished, other, config
  ):
    sources = [shards.read(run / "generate", "train") for run in (finished, other)]
    key = jax.random.key(5)
    start = step.initial_state(config.train, key)

    def read(worker_count, first):
      state = start.replace(step=first)
      made = batches.from_disk(sources, [3.0, 1.0], config.train, key, state, worker_count)
      return list(made)

    expected = read(0, 0)
    assert len(expected) == config.train.steps
    assert expected[0]["image"].reshape(-1, 64, 64, 3).shape[0] == 8
    for worker_count, first in ((0, 4), (1, 3), (2, 0)):
      made = read(worker_count, first)
      assert len(made) == config.train.steps - first
      jax.tree.map(np.testing.assert_array_equal, made, expected[first:])

  def test_a_damaged_shard_is_repaired_by_the_command_that_its_message_names(
    self, finished, other, tmp_path
  ):
    source = tmp_path / "source"
    shutil.copytree(other, source)
    path = shards.shard_path(source / "generate", "train", 0)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"damaged shards.*train\.array_record-00000") as error:
      pipeline.run(mixture((finished, 3.0), (source, 1.0)), tmp_path / "run", ("train",))
    run_command(*str(error.value).rpartition("only these with: python ")[2].split())
    made = shards.shard_path(other / "generate", "train", 0)
    assert whole_files.sha256(path) == whole_files.sha256(made)

  def test_one_set_gives_the_segmenter_of_its_own_run(self, finished, tmp_path):
    pipeline.run(mixture((finished, 0.5)), tmp_path, ("train",))
    (step, state), (expected_step, expected) = last_state(tmp_path), last_state(finished)
    assert step == expected_step
    jax.tree.map(np.testing.assert_array_equal, state["params"], expected["params"])


class TestRefusal:
  @pytest.fixture
  def refuse(self, tmp_path):
    def refuse(config, error, message, stages=STAGES):
      with pytest.raises(error, match=message):
        pipeline.run(config, tmp_path / "run", stages)
      assert not (tmp_path / "run").exists()

    return refuse

  def test_a_run_that_is_not_there(self, finished, tmp_path, refuse):
    listed = (finished, 1.0), (tmp_path / "absent", 1.0)
    refuse(mixture(*listed), FileNotFoundError, "absent is not the workdir of a run")

  def test_a_run_whose_set_is_not_complete(self, copied, refuse):
    stage_records.reopen_stage(copied / "generate")
    refuse(mixture((copied, 1.0)), FileNotFoundError, "generate holds no complete data set")

  def test_a_run_that_made_its_pairs_on_the_fly(self, copied, refuse):
    for path in (copied / "generate").rglob("synthetic-train*"):
      path.unlink()
    refuse(mixture((copied, 1.0)), FileNotFoundError, "no training pairs.*on the fly")

  @pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
  def test_a_weight_that_is_not_above_0(self, finished, weight, refuse):
    refuse(mixture((finished, weight)), ValueError, f"weight {weight}, expected above 0")

  def test_the_same_run_twice(self, finished, tmp_path, refuse):
    (tmp_path / "link").symlink_to(finished)
    listed = (finished, 1.0), (tmp_path / "link", 1.0)
    refuse(mixture(*listed), ValueError, "twice")

  def test_a_stage_that_is_left_out(self, finished, refuse):
    message = "cannot run the stage search, because config.train.data_sets lists"
    refuse(mixture((finished, 1.0)), ValueError, message, ("search", "train"))

  def test_neither_a_generator_nor_data_sets(self, refuse):
    refuse(make_config(""), ValueError, r"config\.generator is empty.*config\.train\.data_sets")

  def test_a_workdir_with_a_set_of_its_own(self, copied, finished):
    before = contents(copied)
    with pytest.raises(stage_records.StageMismatch, match=r"search holds a result, but.*data_sets"):
      pipeline.run(mixture((finished, 1.0)), copied, STAGES)
    assert contents(copied) == before


def test_runs_of_one_name_get_different_numbers(finished, copied):
  listed = data_sets.find(((str(finished), 1), (str(copied), 2)))
  assert [data_set.name for data_set in listed] == ["tiny 1", "tiny 2"]
