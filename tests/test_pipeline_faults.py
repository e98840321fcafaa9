"""Runs continue to the same result after a kill, or explain why they cannot."""

import resource
import shutil
import signal

import event_files
import jax
import numpy as np
import pytest
from whole_runs import SIZES, assert_same_weights, last_state, make_config, records, run_main

from unseg_jax import pipeline
from unseg_jax.runtime import progress
from unseg_jax.segmentation import train
from unseg_jax.storage import whole_files
from unseg_jax.synthesis import generate, shards

pytestmark = pytest.mark.usefixtures("compile_quickly")
STAGES = tuple(pipeline.STAGES)

# Each kills its own process in the middle of a stage, reliably and at a known moment. The progress
# bars show where the stages started.
KILL = """
import os, pathlib, signal, sys, time
from unseg_jax.direction import search
from unseg_jax.runtime import progress
from unseg_jax.segmentation import train
from unseg_jax.synthesis import shards

bar = progress.bar
def announced(description, total, done=0, **options):
  print("bar", description, done, flush=True)
  return bar(description, total, done, **options)
progress.bar = announced

def kill():
  os.kill(os.getpid(), signal.SIGKILL)
"""
KILL_IN = {
  "search": """
save = search._save
def save_and_die(*arguments):
  save(*arguments)
  kill()
search._save = save_and_die
""",
  "generate": """
write = shards.write_shard
def write_half_and_die(path, records, counts):
  if path.name.endswith("train.array_record-00001"):
    path.with_name(path.name + ".incomplete").write_bytes(records[0])
    kill()
  write(path, records, counts)
shards.write_shard = write_half_and_die
""",
  "train": """
fetch = train._fetch
def die_after_the_first_checkpoint(state):
  saved = fetch(state)
  if int(saved["step"]) > 2:
    folder = pathlib.Path(next(x for x in sys.argv if "--workdir" in x).partition("=")[2])
    while not (folder / "train" / "checkpoints" / "2").exists():
      time.sleep(0.05)
    kill()
  return saved
train._fetch = die_after_the_first_checkpoint
""",
}


class TestKilled:
  @pytest.fixture(scope="class")
  @classmethod
  def bars(cls):
    """Start of the work of each process, in order: (progress bar, steps already done)."""
    return []

  @pytest.fixture(scope="class")
  @classmethod
  def resumed(cls, generator, tmp_path_factory, bars):
    """The workdir of a run that was killed in every stage and restarted each time."""
    folder = tmp_path_factory.mktemp("killed")
    flags = (f"--config.generator={generator}", f"--workdir={folder}")
    for stage, code in KILL_IN.items():
      process = run_main(*flags, before=KILL + code)
      assert process.returncode == -signal.SIGKILL, process.stderr
      assert not whole_files.read_json(folder / stage / "stage.json")["complete"]
      lines = (line.split() for line in process.stdout.splitlines() if line.startswith("bar "))
      bars.append([(" ".join(line[1:-1]), int(line[-1])) for line in lines])
      if stage == "generate":
        first_shard = shards.shard_path(folder / "generate", "train", 0)
        shard_time = first_shard.stat().st_mtime_ns
    with pytest.MonkeyPatch.context() as patch:
      bar, started = progress.bar, []

      def noted(description, total, done=0, **options):
        started.append((description, done))
        return bar(description, total, done, **options)

      patch.setattr(progress, "bar", noted)
      pipeline.run(make_config(generator), folder, STAGES)
    bars.append(started)
    assert first_shard.stat().st_mtime_ns == shard_time, "the first shard was made again"
    return folder

  def test_continues_from_what_was_saved(self, resumed, bars):
    assert bars[0] == [("search", 0)]
    assert bars[1] == [("search", 2), ("generate train", 0)]
    assert [name for name, _ in bars[2]] == [
      "generate train",
      "generate validation",
      "generate test",
      "train",
    ]
    assert bars[3][0] == ("train", 2)

  def test_direction_is_the_same(self, resumed, finished):
    direction, expected = (np.load(run / "search" / "direction.npy") for run in (resumed, finished))
    np.testing.assert_array_equal(direction, expected)
    histories = [
      whole_files.read_json(run / "search" / "history.json") for run in (resumed, finished)
    ]
    assert histories[0]["step"] == histories[1]["step"] == list(range(6))

  def test_curves_go_on_without_a_point_twice(self, resumed):
    search, train = (event_files.curves(resumed / "events" / name) for name in ("search", "train"))
    assert [step for step, _ in search["search/sobel_shift"]] == list(range(6))
    assert [step for step, _ in train["train/training/loss"]] == list(range(1, 7))
    assert [step for step, _ in train["train/validation/iou"]] == [2, 4, 6]
    made = event_files.curves(resumed / "events" / "generate" / "train")
    seen = [candidates for candidates, _ in made["generate/train/accepted_all"]]
    assert seen == sorted(set(seen)) and seen[-1] == SIZES["train"]

  @pytest.mark.parametrize("split", SIZES)
  def test_data_set_is_the_same(self, resumed, finished, split):
    assert records(resumed, split) == records(finished, split)
    assert not list(resumed.rglob("*.incomplete"))

  def test_segmenter_is_the_same(self, resumed, finished):
    (step, state), (expected_step, expected) = last_state(resumed), last_state(finished)
    assert step == expected_step == 6
    assert_same_weights(state, expected)
    history = whole_files.read_json(resumed / "train" / "history.json")
    assert history["Training"]["step"] == [1, 2, 3, 4, 5, 6]
    assert history["Validation"]["step"] == [2, 4, 6]
    expected_history = whole_files.read_json(finished / "train" / "history.json")
    np.testing.assert_allclose(
      history["Training"]["loss"], expected_history["Training"]["loss"], rtol=1e-5
    )


class TestFailure:
  def test_full_disk(self, finished, tmp_path):
    whole = shards.shard_path(tmp_path, "train", 0)
    failed = shards.shard_path(tmp_path, "train", 1)
    some = records(finished, "train")[:16]
    assert sum(map(len, some)) > 40_000
    shards.write_shard(whole, some, {})
    before = whole.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The file size is limited, which is the closest to a full disk in a test.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
      with pytest.raises(OSError, match=r"train\.array_record-00001.*disk space"):
        shards.write_shard(failed, some, {})
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path for path in tmp_path.iterdir() if path.is_file()] == [whole]
    assert whole.read_bytes() == before

  def test_filters_that_reject_everything(self, finished, config, tmp_path):
    shutil.copytree(finished / "search", tmp_path / "search")
    config.generate.area = (0.99, 1.0)
    config.generate.roundness = 1e-9
    with pytest.raises(generate.TooFewAccepted) as error:
      pipeline.run(config, tmp_path, ("generate",))
    message = str(error.value)
    candidates = int(message.partition("accepted of ")[2].partition(" ")[0].replace(",", ""))
    assert candidates <= 1000
    assert "area 0.0%" in message and "roundness 100.0%" in message and "all 0.0%" in message
    assert "config.generate.area" in message

  def test_loss_that_is_not_finite(self, finished, config, tmp_path, monkeypatch):
    for stage in ("search", "generate"):
      shutil.copytree(finished / stage, tmp_path / stage)
    make_step = train.make_measured_step

    def diverging(*arguments):
      step = make_step(*arguments)

      def diverging_step(state, batch):
        new, loss, norm = step(state, batch)
        return new, jax.numpy.where(state.step == 4, jax.numpy.nan, loss), norm

      return diverging_step

    monkeypatch.setattr(train, "make_measured_step", diverging)
    with pytest.raises(FloatingPointError) as error:
      pipeline.run(config, tmp_path, ("train",))
    assert "not finite at step 4" in str(error.value)
    assert f"step 4, in {tmp_path / 'train' / 'checkpoints' / '4'}" in str(error.value)
    losses = event_files.curves(tmp_path / "events" / "train")["train/training/loss"]
    assert [step for step, _ in losses] == [1, 2, 3, 4, 5]
    assert [bool(np.isfinite(loss)) for _, loss in losses] == [True] * 4 + [False]
    assert "config.train.learning_rate" in str(error.value)

  def test_loss_that_is_not_finite_before_any_checkpoint(self, finished, config, tmp_path):
    for stage in ("search", "generate"):
      shutil.copytree(finished / stage, tmp_path / stage)
    config.train.learning_rate = 1e30
    with pytest.raises(FloatingPointError, match=r"not finite at step \d.*checkpoint"):
      pipeline.run(config, tmp_path, ("train",))
