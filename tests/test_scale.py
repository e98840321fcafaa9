"""Many devices, many processes, killed runs and damaged shards."""

import shutil
import signal

import numpy as np
import pytest
from whole_runs import (
  KILLS,
  SIZES,
  assert_same_result,
  contents,
  finish,
  make_config,
  of_processes,
  records,
  run_command,
  run_main,
  start_python,
)

from unseg_jax import pipeline
from unseg_jax.runtime import preemption
from unseg_jax.storage import whole_files
from unseg_jax.synthesis import shards

pytestmark = pytest.mark.usefixtures("compile_quickly")
STAGES = tuple(pipeline.STAGES)
SPLITS = ("train", "validation", "test")
STEPS = 20

# A search; then, from the same direction, a data set on disk and pairs on the fly.
BOTH = f"""
import pathlib, sys
import jax
from unseg_jax import pipeline
from unseg_jax.runtime import parallel
from whole_runs import make_config

def run_both(generator, folder, stages):
  pipeline.run(make_config(generator), pathlib.Path(folder) / "own", ["search"])
  for name, images in (("disk", 40), ("fly", 0)):
    config = make_config(generator)
    config.train.steps = {STEPS}
    config.train.checkpoint_every = 10
    config.generate.num_images.train = images
    pipeline.run(config, pathlib.Path(folder) / name, stages)
"""
ALONE = (
  BOTH
  + """
if __name__ == "__main__":
  assert jax.device_count() == int(sys.argv[3])
  run_both(*sys.argv[1:3], ["search", "generate", "train"])
"""
)
# Started through the environment; the second process may be killed during the training.
TOGETHER = (
  BOTH
  + """
from unseg_jax.runtime import failure
from whole_runs import die_in_training

parallel.start()
assert jax.process_count() == 2 and jax.device_count() == 4
if sys.argv[3] == "die" and jax.process_index() == 1:
  die_in_training(10)
with failure.shared():
  run_both(*sys.argv[1:3], list(pipeline.STAGES))
"""
)


def devices(count):
  return {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}


def run_together(*arguments):
  """Runs two processes with two devices each until they end."""
  started = [
    start_python(TOGETHER, *arguments, **environment) for environment in of_processes(2, devices=2)
  ]
  return [finish(process) for process in started]


# Two processes with two devices make four.
SLOW = [pytest.param(f"{count} devices", marks=pytest.mark.slow) for count in (2, 4)]


class TestDevicesAndProcesses:
  @pytest.fixture(scope="class")
  @classmethod
  def new_folder(cls, compile_quickly, finished, tmp_path_factory):
    """Creates folders with the result of a search."""

    def new():
      folder = tmp_path_factory.mktemp("scale")
      for name in ("disk", "fly"):
        shutil.copytree(finished / "search", folder / name / "search")
      return folder

    return new

  @pytest.fixture(scope="class")
  @classmethod
  def alone(cls, new_folder, generator):
    """The results of one process with one device."""
    folder = new_folder()
    process = finish(start_python(ALONE, generator, folder, 1, **devices(1)))
    assert process.returncode == 0, process.stderr
    return folder

  @pytest.fixture(scope="class")
  @classmethod
  def killed(cls, new_folder, generator):
    """The workdir of two processes, one of which was killed, and their exit statuses."""
    folder = new_folder()
    return folder, run_together(generator, folder, "die")

  @pytest.fixture(scope="class", params=[*SLOW, "2 processes"])
  @classmethod
  def others(cls, request, generator, new_folder):
    """The results of several devices or processes."""
    if request.param == "2 processes":
      folder, _ = request.getfixturevalue("killed")
      for process in run_together(generator, folder, "live"):
        assert process.returncode == 0, process.stderr
      return folder
    folder = new_folder()
    count = int(request.param.split()[0])
    process = finish(start_python(ALONE, generator, folder, count, **devices(count)))
    assert process.returncode == 0, process.stderr
    return folder

  def test_when_one_process_dies_the_others_stop_and_say_so(self, killed):
    folder, (survivor, victim) = killed
    assert victim.returncode == -signal.SIGKILL
    assert survivor.returncode not in (0, None)
    said = "process 0 of 2 was stopped", "process 1 of 2: it was killed"
    assert any(message in survivor.stderr for message in said)
    assert "Restart all processes with the same command" in survivor.stderr
    assert not whole_files.read_json(folder / "disk" / "train" / "stage.json")["complete"]

  def test_find_the_same_direction(self, others, alone):
    direction, expected = (np.load(run / "own/search/direction.npy") for run in (others, alone))
    np.testing.assert_allclose(direction, expected, atol=1e-4)

  @pytest.mark.parametrize("split", SPLITS)
  def test_accept_the_same_candidates_with_the_same_pixels(self, others, alone, split):
    pairs, expected = (
      list(shards.read(run / "disk" / "generate", split)) for run in (others, alone)
    )
    assert [pair["candidate"] for pair in pairs] == [pair["candidate"] for pair in expected]
    for name in ("image", "mask"):
      arrays = [np.stack([pair[name] for pair in run]).astype(int) for run in (pairs, expected)]
      print(split, name, "largest difference", np.abs(arrays[0] - arrays[1]).max())
      assert np.abs(arrays[0] - arrays[1]).max() <= 1
    filters = [
      whole_files.read_json(run / "disk" / "generate" / "filters.json") for run in (others, alone)
    ]
    assert filters[0] == filters[1]

  @pytest.mark.parametrize("source", ["disk", "fly"])
  def test_train_along_the_same_losses(self, others, alone, source):
    history, expected = (
      whole_files.read_json(run / source / "train" / "history.json")["Training"]
      for run in (others, alone)
    )
    assert history["step"] == expected["step"] == list(range(1, STEPS + 1))
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-3)

  def test_finish(self, others, request):
    # The runs on several devices leave out evaluation and report.
    whole = "2 processes" in request.node.name
    for source in ("disk", "fly"):
      assert whole_files.read_json(others / source / "train" / "stage.json")["complete"]
      assert (others / source / "metrics.json").exists() == whole
      assert (others / source / "report.html").exists() == whole
      assert not list((others / source).rglob("*.incomplete"))


# Sends the process SIGTERM, as a cluster does, after two updates of a stage's progress bar.
LEAVE = """
import os, signal
from unseg_jax.runtime import progress

bar = progress.bar
def watched(description, *arguments, **options):
  made = bar(description, *arguments, **options)
  update, moves = made.update, []
  def counted(n=1):
    moves.append(n)
    if description.startswith(STAGE) and len(moves) == 2:
      os.kill(os.getpid(), getattr(signal, SIGNAL))
    return update(n)
  made.update = counted
  return made
progress.bar = watched
"""


class TestAskedToLeave:
  def test_saves_leaves_with_its_own_status_and_continues(self, generator, finished, tmp_path):
    flags = (f"--config.generator={generator}", f"--workdir={tmp_path}")
    stages = {"search": "SIGTERM", "generate": "SIGINT", "train": "SIGHUP"}
    for stage, name in stages.items():
      before = f"STAGE, SIGNAL = '{stage}', '{name}'{LEAVE}"
      process = run_main(*flags, "--workers=2", before=before)
      assert process.returncode == preemption.EXIT_STATUS, process.stderr
      message = process.stderr.strip().splitlines()[-1]
      assert "Traceback" not in process.stderr
      assert message.startswith(f"stopped ({name})") and "same command again" in message
      assert not whole_files.read_json(tmp_path / stage / "stage.json")["complete"]
      if stage == "generate":
        kept = list((tmp_path / "generate" / shards.UNDER_WAY).glob("*.array_record-*"))
        assert len(kept) == 1
        pairs, _ = shards.read_under_way(tmp_path / "generate" / kept[0].name)
        assert pairs and all(pair in records(finished, "train") for pair in pairs)
    # Step 2 of the training was saved, although no checkpoint was due at the odd step before it.
    assert (tmp_path / "search" / "state.msgpack").exists()
    pipeline.run(make_config(generator), tmp_path, STAGES, worker_count=1)
    assert_same_result(tmp_path, finished)
    assert not (tmp_path / "generate" / shards.UNDER_WAY).exists()


@pytest.mark.slow
class TestKilledAtRandom:
  def test_ends_in_the_same_result(self, generator, finished, tmp_path, request):
    kills = request.config.getoption("--kills")
    process = start_python(KILLS, generator, tmp_path, kills, 10)
    _, errors = process.communicate(timeout=60 + 20 * kills)
    assert process.returncode == 0, errors
    for folder in tmp_path.iterdir():
      assert_same_result(folder, finished)


class TestDamagedShards:
  @pytest.fixture
  def flipped(self, copied):
    """A shard of a finished run with one flipped bit in its middle; later results are removed."""
    path = shards.shard_path(copied / "generate", "train", 1)
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)
    for stage in ("train", "evaluate", "report"):
      shutil.rmtree(copied / stage)
    return path

  def test_are_named_when_they_are_read(self, flipped, copied, config):
    with pytest.raises(
      ValueError, match=r"(?s)damaged.*train\.array_record-00001\..*--repair"
    ) as error:
      pipeline.run(config, copied, ("train",))
    assert "00000" not in str(error.value)

  def test_are_no_obstacle_to_what_reads_others(self, flipped, copied):
    train = shards.read(copied / "generate", "train")
    assert train[0]["candidate"] == 0
    with pytest.raises(ValueError, match=r"array_record-00001\. "):
      train[len(train) - 1 if len(train.lengths) == 2 else train.lengths[0]]
    assert len(list(shards.read(copied / "generate", "test"))) == SIZES["test"]

  def test_the_message_has_the_command_that_makes_them_anew(self, flipped, copied, finished):
    with pytest.raises(ValueError, match="--repair") as error:
      list(shards.read(copied / "generate", "train"))
    command = str(error.value).rpartition("only these with: ")[2].split()
    assert command[0] == "python" and f"--workdir={copied}" in command
    run_command(*command[1:])
    assert records(copied, "train") == records(finished, "train")

  def test_are_repaired_and_no_other_is_touched(self, flipped, copied, config, finished):
    before = {
      path: state
      for path, state in contents(copied).items()
      if "array_record" in path.name and path.suffix != ".json"
    }
    pipeline.run(config, copied, ("generate",), repair=True)
    after = contents(copied)
    changed = {path for path, state in before.items() if after[path] != state}
    assert changed == {flipped.relative_to(copied)}
    original = shards.shard_path(finished / "generate", "train", 1)
    assert whole_files.sha256(flipped) == whole_files.sha256(original)
    assert records(copied, "train") == records(finished, "train")

  def test_a_missing_one_is_made_again_too(self, flipped, copied, config, finished):
    flipped.unlink()
    with pytest.raises(ValueError, match=r"train\.array_record-00001"):
      shards.read(copied / "generate", "train")
    pipeline.run(config, copied, ("generate",), repair=True)
    assert records(copied, "train") == records(finished, "train")
