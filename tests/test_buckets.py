"""A run in a bucket gives the same results as one on disk, even if one request in twenty fails."""

import json
import signal
import threading

import brightness_segmenter
import bucket_servers
import numpy as np
import pytest
from unseg_jax.configs import evaluate as evaluate_config
from whole_runs import (
  KILLS,
  ROOT,
  SIZES,
  assert_same_result,
  finish,
  of_processes,
  records,
  start_python,
)

from unseg_jax import generators, pipeline, predict, report
from unseg_jax.prediction import inputs
from unseg_jax.storage import places, stores, whole_files
from unseg_jax.synthesis import latents

pytestmark = pytest.mark.usefixtures("compile_quickly")


@pytest.mark.parametrize("kind", ["s3", pytest.param("gs", marks=pytest.mark.slow)])
def test_a_run_in_a_bucket_is_that_on_a_disk(kind, config, finished, tmp_path, monkeypatch):
  with bucket_servers.server(kind) as real:
    proxy = bucket_servers.Proxy(real)
    bucket_servers.use(kind, proxy.address, tmp_path / "one", monkeypatch)
    monkeypatch.chdir(tmp_path)
    proxy.faulty = 20
    url = f"{kind}://bucket/runs/tiny"
    pipeline.run(config, url, ("search", "generate"))
    bucket_servers.move_to(tmp_path / "two", monkeypatch)
    pipeline.run(config, url, pipeline.STAGES)
    assert proxy.refused > 0

    bucket_servers.move_to(tmp_path / "three", monkeypatch)
    local = fetched(url, finished)
    assert_same_result(local, finished)
    assert whole_files.read_json(local / "metrics.json").keys() == {"synthetic"}
    assert (local / "report.html").read_text()

    example = "unseg_jax/pretrained/example/astronaut_head.png"
    stores.open_store(f"{kind}://bucket").upload(ROOT / example, "photos/a/head.png")
    predict.predict(url, f"{kind}://bucket/photos", f"{kind}://bucket/segmented", False)
    names = set(stores.open_store(f"{kind}://bucket").list())
    assert {"segmented/a/head_mask.png", "segmented/predictions.jsonl"} <= names
    arguments = (url, f"{kind}://bucket/photos", f"{kind}://bucket/segmented", False)
    assert predict.predict(*arguments) == 1  # It refuses to replace existing outputs.
    assert predict.predict(*arguments, resume=True) == 0
    assert not [name for name in names if "incomplete" in name or "orbax-checkpoint-tmp" in name]
    proxy.close()


def test_whatever_a_config_names_may_be_in_a_bucket(generator, finished, tmp_path, monkeypatch):
  with bucket_servers.server("s3") as address:
    bucket_servers.use("s3", address, tmp_path / "one", monkeypatch)
    bucket = stores.open_store("s3://bucket")
    example = ROOT / "unseg_jax" / "pretrained" / "example"
    np.save(tmp_path / "latents.npy", np.zeros((3, 8), np.float32))
    for path, name in (
      (generator, "generator.safetensors"),
      (tmp_path / "latents.npy", "latents.npy"),
      (ROOT / "unseg_jax/pretrained/segmenters/faces.safetensors", "faces.safetensors"),
      (example / "astronaut_head.png", "data/ECSSD/images/head.png"),
      (example / "astronaut_head_mask.png", "data/ECSSD/ground_truth_mask/head.png"),
    ):
      bucket.upload(path, name)
    loaded = generators.resolve("s3://bucket/generator.safetensors")
    assert loaded.latent_shape == generators.resolve(str(generator)).latent_shape
    assert latents.read("s3://bucket/latents.npy", (8,)).shape == (3, 8)

    config = evaluate_config.get_config()
    config.segmenter = "s3://bucket/faces.safetensors"
    config.data_root = "s3://bucket/data"
    config.evaluate.benchmarks = ("ecssd",)
    masks = "s3://bucket/data/ECSSD/ground_truth_mask"
    config.evaluate.folders = (("portraits", "s3://bucket/data/ECSSD/images", masks, False),)
    pipeline.run(config, "s3://bucket/scores", pipeline.STAGES)
    scores = whole_files.read_json(places.local("s3://bucket/scores") / "metrics.json")
    assert scores["portraits"] == scores["ecssd"] and scores["portraits"]["iou"] > 0.9
    with pytest.raises(FileNotFoundError, match="s3://bucket/photos"):
      predict.predict("pretrained:faces", "s3://bucket/photos/*.png", str(tmp_path / "out"), False)

    for path in finished.rglob("*"):
      if path.is_file():
        bucket.upload(path, f"run/{path.relative_to(finished)}")
    made = report.make(["s3://bucket/run"], "s3://bucket/pages/run.html")
    assert made.read_text() and bucket.entry("pages/run.html").size == made.stat().st_size


# Process 1 may be killed in the middle of the training.
TOGETHER = """
import sys
import jax
from unseg_jax import pipeline
from unseg_jax.runtime import failure, parallel
from whole_runs import die_in_training, make_config

parallel.start()
if sys.argv[3] == "die" and jax.process_index() == 1:
  die_in_training(2)
with failure.shared():
  pipeline.run(make_config(sys.argv[1]), sys.argv[2], list(pipeline.STAGES))
"""


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_processes_have_nothing_but_the_bucket_in_common(
  killed, generator, finished, tmp_path, monkeypatch
):
  with bucket_servers.server("s3") as address:
    url = "s3://bucket/runs/together"
    bucket_servers.use("s3", address, tmp_path / "zero", monkeypatch)
    bucket = stores.open_store(url)
    # From the same direction, since several devices find it up to rounding only.
    for path in sorted((finished / "search").glob("*")):
      bucket.upload(path, f"search/{path.name}")

    def run(what, machines):
      started = [
        start_python(
          TOGETHER,
          generator,
          url,
          what,
          **bucket_servers.environment("s3", address, tmp_path / machine),
          **numbered,
        )
        for machine, numbered in zip(machines, of_processes(2), strict=True)
      ]
      return [finish(process) for process in started]

    if killed:
      survivor, victim = run("die", ("one", "two"))
      assert victim.returncode == -signal.SIGKILL and survivor.returncode not in (0, None)
    for process in run("live", ("one", "three")):
      assert process.returncode == 0, process.stderr

    bucket_servers.use("s3", address, tmp_path / "four", monkeypatch)
    local = fetched(url, finished)
    for split in SIZES:
      assert records(local, split) == records(finished, split)
    history, expected = (
      whole_files.read_json(run / "train" / "history.json")["Training"] for run in (local, finished)
    )
    assert history["step"] == expected["step"]
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-3)
    assert (local / "report.html").exists() and (local / "metrics.json").exists()


def fetched(url, finished):
  """Returns a run's local copy, including its shards."""
  local = places.local(url)
  places.fetch(local / "generate" / path.name for path in finished.glob("generate/*array_rec*"))
  return local


@pytest.mark.slow
def test_a_store_that_goes_away_in_every_stage_loses_nothing(
  config, finished, tmp_path, monkeypatch
):
  with bucket_servers.server("s3") as real:
    proxy = bucket_servers.Proxy(real)
    bucket_servers.use("s3", proxy.address, tmp_path / "one", monkeypatch)
    run_stage = pipeline._run_stage

    def interrupted(this, stage):
      proxy.down = True
      threading.Timer(3, setattr, (proxy, "down", False)).start()
      run_stage(this, stage)
      assert not proxy.down  # Nothing is done without the store.

    monkeypatch.setattr(pipeline, "_run_stage", interrupted)
    pipeline.run(config, "s3://bucket/runs/cut", pipeline.STAGES)
    bucket_servers.use("s3", proxy.address, tmp_path / "two", monkeypatch)
    assert_same_result(fetched("s3://bucket/runs/cut", finished), finished)
    proxy.close()


@pytest.mark.slow
def test_a_run_killed_at_random_ends_in_the_same_result(
  generator, finished, tmp_path, monkeypatch, request
):
  kills = request.config.getoption("--kills")
  with bucket_servers.server("s3") as address:
    environment = bucket_servers.environment("s3", address, tmp_path / "one")
    process = start_python(KILLS, generator, "s3://bucket/killed", kills, 12, **environment)
    _, errors = process.communicate(timeout=120 + 20 * kills)
    assert process.returncode == 0, errors
    bucket_servers.use("s3", address, tmp_path / "two", monkeypatch)
    names = stores.open_store("s3://bucket/killed").list()
    assert not [name for name in names if "incomplete" in name or "orbax-checkpoint-tmp" in name]
    for number in {name.partition("/")[0] for name in names}:
      assert_same_result(fetched(f"s3://bucket/killed/{number}", finished), finished)


def test_a_picture_that_vanishes_from_a_bucket_is_skipped(tmp_path, monkeypatch, capsys):
  run = brightness_segmenter.stand_in(monkeypatch, tmp_path / "run")
  with bucket_servers.server("s3") as address:
    bucket_servers.use("s3", address, tmp_path / "one", monkeypatch)
    bucket = stores.open_store("s3://bucket")
    example = ROOT / "unseg_jax/pretrained/example/astronaut_head.png"
    for name in ("a", "b", "c"):
      bucket.upload(example, f"photos/{name}.png")
    fetch = inputs.fetch

    def vanish(picture):
      bucket.remove("photos/b.png")
      return fetch(picture)

    monkeypatch.setattr(inputs, "fetch", vanish)
    arguments = (str(run), "s3://bucket/photos", str(tmp_path / "out"), False)
    assert predict.predict(*arguments, kinds=["mask"]) == 1
    assert "skipped: s3://bucket/photos/b.png" in capsys.readouterr().err
    manifest = (tmp_path / "out" / "predictions.jsonl").read_text()
    rows = [json.loads(line) for line in manifest.splitlines()]
    assert ["skipped" in row for row in rows] == [False, True, False]
    size, tag = bucket.entry("photos/a.png")
    assert rows[0]["made of"]["input"] == {"bytes": size, "tag": tag}
    bucket.upload(ROOT / "unseg_jax/pretrained/example/astronaut_head_mask.png", "photos/a.png")
    assert predict.predict(*arguments, kinds=["mask"], resume=True) == 0
    assert "redoing pictures: the picture changed (1)" in capsys.readouterr().err
