"""A URL works through a local copy with atomic uploads; errors are reported in one line."""

import asyncio
import os
import sys
import types

import bucket_servers
import pytest

from unseg_jax.storage import places, stores, whole_files


@pytest.fixture(scope="module", params=["s3", "gs"])
def address(request):
  with bucket_servers.server(request.param) as address:
    yield request.param, address


@pytest.fixture
def store(address, tmp_path, monkeypatch):
  """Yields the store's proxy, and the URL of a place in the store."""
  kind, real = address
  # gcsfs would pause for half a minute in total.
  monkeypatch.setattr(
    "gcsfs.retry.asyncio", types.SimpleNamespace(sleep=lambda _: asyncio.sleep(0))
  )
  proxy = bucket_servers.Proxy(real)
  bucket_servers.use(kind, proxy.address, tmp_path / "cache", monkeypatch)
  yield proxy, f"{kind}://bucket/{tmp_path.name}"
  proxy.close()


def test_what_is_written_is_there_on_another_machine(store, tmp_path, monkeypatch):
  _, url = store
  here = places.local(url)
  whole_files.write_json(here / "stage" / "a.json", {"one": 1})
  whole_files.write_bytes(here / "shard.array_record-00000", b"x" * 1000)
  bucket_servers.move_to(tmp_path / "other", monkeypatch)
  elsewhere = places.local(url)
  assert elsewhere != here
  assert whole_files.read_json(elsewhere / "stage" / "a.json") == {"one": 1}
  shard = elsewhere / "shard.array_record-00000"
  assert not shard.exists() and places.size(shard) == 1000
  places.fetch([shard])
  assert shard.read_bytes() == b"x" * 1000


def test_what_others_changed_or_removed_is_so_here_too(store, tmp_path, monkeypatch):
  _, url = store
  here = places.local(url)
  for name in ("kept", "changed", "removed"):
    whole_files.write_bytes(here / name, b"before")
  bucket_servers.move_to(tmp_path / "other", monkeypatch)
  elsewhere = places.local(url)
  whole_files.write_bytes(elsewhere / "changed", b"after")
  (elsewhere / "removed").unlink()
  places.remove(elsewhere / "removed")
  bucket_servers.move_to(tmp_path / "cache", monkeypatch)
  assert places.local(url) == here
  files = {path.name: path.read_bytes() for path in here.iterdir()}
  assert files == {"kept": b"before", "changed": b"after"}


def test_large_files_of_several_places_come_at_once(store, tmp_path, monkeypatch):
  _, url = store
  urls = [f"{url}/one", f"{url}/two"]
  for number, place in enumerate(urls):
    whole_files.write_bytes(places.local(place) / "shard.array_record-00000", bytes([number]))
  bucket_servers.move_to(tmp_path / "other", monkeypatch)
  shards = [places.local(place) / "shard.array_record-00000" for place in urls]
  places.fetch(shard for shard in shards)
  assert [shard.read_bytes() for shard in shards] == [b"\0", b"\1"]


def test_a_folder_that_counts_as_a_whole_is_not_seen_before_it_is(store, tmp_path, monkeypatch):
  _, url = store
  here = places.local(url)
  step = here / "checkpoints" / "2"
  whole_files.write_bytes(step / "state", b"weights")
  bucket_servers.move_to(tmp_path / "other", monkeypatch)
  assert not (places.local(url) / "checkpoints").exists()
  bucket_servers.move_to(tmp_path / "cache", monkeypatch)
  places.local(url)  # Simulates that its process was killed.
  whole_files.write_bytes(step / "state", b"weights")
  places.publish_folder(step, whole=True)
  bucket_servers.move_to(tmp_path / "third", monkeypatch)
  assert (places.local(url) / "checkpoints" / "2" / "state").read_bytes() == b"weights"


def test_short_faults_are_waited_out_and_announced_in_one_line(store, caplog):
  proxy, url = store
  here = places.local(url)
  proxy.faulty = 4  # A look-up with gs:// takes two requests; each of the three fails once.
  for number in range(6):
    whole_files.write_json(here / f"{number}.json", number)
  assert proxy.refused >= 3
  proxy.faulty = 0
  assert len(stores.open_store(url).list()) == 6
  announced = [line for line in caplog.messages if "retrying in" in line]
  assert all("\n" not in line for line in announced)
  # The first retries of gcsfs are silent.
  assert bool(announced) == url.startswith("s3:")


def test_a_long_fault_keeps_everything_here_and_the_next_run_sends_it(
  store, tmp_path, monkeypatch, caplog
):
  proxy, url = store
  here = places.local(url)
  monkeypatch.setattr(stores, "PATIENCE_SECONDS", 0.5)
  proxy.down = True
  with pytest.raises(OSError, match="run the same command again"):
    whole_files.write_json(here / "a.json", {"precious": True})
  assert "retrying in" in caplog.text
  proxy.down = False
  bucket_servers.move_to(tmp_path / "cache", monkeypatch)
  assert places.local(url) == here
  assert whole_files.read_json(here / "a.json") == {"precious": True}
  assert "a.json" in stores.open_store(url).list()


def test_an_object_that_arrived_short_is_sent_again(store, tmp_path, monkeypatch, caplog):
  _, url = store
  place = stores.open_store(url)
  whole, cut = tmp_path / "whole", tmp_path / "cut"
  whole.write_bytes(b"1234\r")
  cut.write_bytes(b"123")
  paths, put_file = iter([cut]), place.files.put_file
  monkeypatch.setattr(
    place.files, "put_file", lambda path, target: put_file(str(next(paths, path)), target)
  )
  assert place.upload(whole, "object").size == 5
  assert place.read("object") == b"1234\r"
  assert "3 of 5 bytes arrived" in caplog.text


def test_an_object_that_is_not_there_is_named(store):
  _, url = store
  with pytest.raises(FileNotFoundError, match=r"nothing\.png"):
    stores.open_store(url).read("nothing.png")


def test_a_bucket_that_is_not_there_is_named(store):
  _, url = store
  with pytest.raises(FileNotFoundError, match=r"no (such )?bucket"):
    places.local(url.replace("bucket", "bouquet"))


def test_an_unknown_scheme_is_named():
  with pytest.raises(ValueError, match=r"gss://bucket/run: the scheme 'gss' is not known"):
    places.local("gss://bucket/run")


@pytest.mark.parametrize(
  ("url", "module", "extra"),
  [
    ("gs://bucket/run", "gcsfs.core", "gcs"),
    ("s3://bucket/run", "obstore.fsspec", "s3"),
  ],
)
def test_a_missing_extra_is_named(url, module, extra, monkeypatch):
  monkeypatch.setitem(sys.modules, module, None)
  with pytest.raises(ImportError, match=rf'pip install "unseg-jax\[{extra}\]"'):
    places.local(url)


def test_missing_credentials_are_named(monkeypatch, tmp_path):
  for name in [name for name in os.environ if name.startswith("AWS_")]:
    monkeypatch.delenv(name)
  monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
  monkeypatch.setenv("HOME", str(tmp_path))
  with pytest.raises(PermissionError, match="AWS_ACCESS_KEY_ID"):
    places.local("s3://bucket/run")
