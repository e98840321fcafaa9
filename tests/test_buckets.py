"""A whole run in a bucket is the run on a disk, though the store refuses a request in twenty."""

import bucket_servers
import pytest
from whole_runs import ROOT, SIZES, assert_same_weights, last_state, records

from unseg_jax import pipeline, predict
from unseg_jax.runtime import places, stores, workdir

pytestmark = pytest.mark.usefixtures("compile_quickly")


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_a_run_in_a_bucket_is_that_on_a_disk(kind, config, finished, tmp_path, monkeypatch):
  with bucket_servers.server(kind) as real:
    proxy = bucket_servers.Proxy(real)
    for name, value in bucket_servers.environment(kind, proxy.address, tmp_path / "one").items():
      monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    bucket_servers.move_to(tmp_path / "one", monkeypatch)
    proxy.faulty = 20
    url = f"{kind}://bucket/runs/tiny"
    pipeline.run(config, url, ("search", "generate"))
    bucket_servers.move_to(tmp_path / "two", monkeypatch)
    pipeline.run(config, url, pipeline.STAGES)
    assert proxy.refused > 0

    bucket_servers.move_to(tmp_path / "three", monkeypatch)
    there = places.local(url)
    shards = [there / "generate" / path.name for path in finished.glob("generate/*array_record*")]
    places.fetch(shards)
    for split in SIZES:
      assert records(there, split) == records(finished, split)
    (step, state), (expected_step, expected) = last_state(there), last_state(finished)
    assert step == expected_step
    assert_same_weights(state, expected)
    assert workdir.read_json(there / "metrics.json").keys() == {"synthetic"}
    assert (there / "report.html").read_text()

    example = "unseg_jax/pretrained/example/astronaut_head.png"
    stores.open_store(f"{kind}://bucket").upload(ROOT / example, "photos/a/head.png")
    predict.predict(url, f"{kind}://bucket/photos", f"{kind}://bucket/found", False)
    names = set(stores.open_store(f"{kind}://bucket").list())
    assert "found/a/head_mask.png" in names
    assert not [name for name in names if "incomplete" in name or "orbax-checkpoint-tmp" in name]
    proxy.close()
