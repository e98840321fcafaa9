"""Downloads of published checkpoints: whole, checked, and resumed after a break."""

import fcntl
import hashlib
import http.server
import pathlib
import random
import re
import threading

import pytest

from checkpoints_convert import download
from unseg_jax.runtime import workdir

DATA = random.Random(0).randbytes(3_000_000)


class Handler(http.server.BaseHTTPRequestHandler):
  """Serves `server.data` as told by the server's attributes, and notes each request's headers."""

  def do_GET(self):
    server = self.server
    server.requests.append(dict(self.headers))
    if server.status != 200:
      return self.send_error(server.status)
    if server.redirect:
      self.send_response(302)
      self.send_header("Location", server.redirect)
      return self.end_headers()
    data, start = server.data, 0
    wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
    same = server.ignores_if_range or self.headers.get("If-Range") == server.etag
    if wanted and same and server.knows_ranges:
      start = int(wanted[1])
      if start >= len(data):
        return self.send_error(416)
    self.send_response(206 if start else 200)
    if start:
      self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
    if server.etag:
      self.send_header("ETag", server.etag)
    if server.tells_length:
      self.send_header("Content-Length", str(len(data) - start))
    self.end_headers()
    self.wfile.write(data[start : server.stops_after])

  def log_message(self, *_):
    pass


@pytest.fixture
def server():
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
    found.data, found.etag, found.status, found.redirect = DATA, '"1"', 200, None
    found.knows_ranges, found.ignores_if_range, found.tells_length = True, False, True
    found.stops_after = None  # where it drops the connection
    found.requests = []
    found.url = f"http://127.0.0.1:{found.server_address[1]}/some/model.pt?raw=1"
    thread = threading.Thread(target=found.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.shutdown()
    thread.join()


def drop(server, folder, after=1_000_000):
  """Lets a download break off; returns its error's message."""
  server.stops_after = after
  with pytest.raises(OSError) as error:
    download.fetch(server.url, folder)
  server.stops_after = None
  return str(error.value)


def names(folder):
  return sorted(path.name.partition("_")[2] for path in folder.iterdir())


def test_a_file_is_downloaded_once(server, tmp_path):
  path = download.fetch(server.url, tmp_path / "new")
  assert path.read_bytes() == DATA
  assert names(tmp_path / "new") == ["model.pt"]
  assert download.fetch(server.url, tmp_path / "new") == path
  assert len(server.requests) == 1


def test_files_of_the_same_name_are_kept_apart(server, tmp_path):
  first = download.fetch(server.url, tmp_path)
  server.data = b"another"
  second = download.fetch(server.url.replace("some", "other"), tmp_path)
  assert (first.read_bytes(), second.read_bytes()) == (DATA, b"another")


def test_downloads_are_kept_in_the_users_cache(server, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  assert download.fetch(server.url).parent == tmp_path / "unseg_jax"
  monkeypatch.delenv("XDG_CACHE_HOME")
  monkeypatch.setattr(pathlib.Path, "home", lambda: tmp_path / "home")
  assert workdir.cache_folder() == tmp_path / "home" / ".cache" / "unseg_jax"


def test_a_broken_download_says_so_and_is_resumed(server, tmp_path):
  message = drop(server, tmp_path)
  assert "ended after 1000000 of 3000000 bytes" in message and "run again to resume" in message
  assert names(tmp_path) == ["model.pt.part", "model.pt.version"]
  drop(server, tmp_path, after=2_000_000)
  assert download.fetch(server.url, tmp_path).read_bytes() == DATA
  assert [r.get("Range") for r in server.requests] == [None, "bytes=1000000-", "bytes=2000000-"]
  assert names(tmp_path) == ["model.pt"]


@pytest.mark.parametrize("ignores_if_range", [False, True])
def test_a_file_that_changed_meanwhile_is_fetched_anew(server, tmp_path, ignores_if_range):
  drop(server, tmp_path)
  server.data, server.etag, server.ignores_if_range = DATA[::-1], '"2"', ignores_if_range
  assert download.fetch(server.url, tmp_path).read_bytes() == DATA[::-1]
  assert server.requests[1]["If-Range"] == '"1"'


def test_a_file_that_changed_and_broke_again_is_resumed_as_the_new_one(server, tmp_path):
  drop(server, tmp_path)
  server.data, server.etag = DATA[::-1], '"2"'
  drop(server, tmp_path, after=500_000)
  assert download.fetch(server.url, tmp_path).read_bytes() == DATA[::-1]
  assert server.requests[2]["Range"] == "bytes=500000-"
  assert server.requests[2]["If-Range"] == '"2"'


def test_a_file_that_became_shorter_is_fetched_anew(server, tmp_path):
  drop(server, tmp_path)
  server.data = DATA[:1000]
  assert download.fetch(server.url, tmp_path).read_bytes() == DATA[:1000]


def test_a_server_without_ranges_sends_everything_again(server, tmp_path):
  drop(server, tmp_path)
  server.knows_ranges = False
  assert download.fetch(server.url, tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_without_a_name_for_the_version_nothing_is_resumed(server, tmp_path, etag):
  server.etag = etag
  assert "run again to start anew" in drop(server, tmp_path)
  server.data = DATA[::-1]
  assert download.fetch(server.url, tmp_path).read_bytes() == DATA[::-1]
  assert "Range" not in server.requests[1]


@pytest.mark.parametrize("status", [404, 403, 500, 206, 204])
def test_an_answer_that_is_no_file_is_told_and_leaves_nothing(server, tmp_path, status):
  server.status = status
  with pytest.raises(OSError, match=rf"model\.pt\?raw=1: the server answered {status} .*address"):
    download.fetch(server.url, tmp_path)
  assert not list(tmp_path.iterdir())


def test_an_answer_that_is_no_file_keeps_what_was_there(server, tmp_path):
  drop(server, tmp_path)
  server.status = 503
  with pytest.raises(OSError, match="the server answered 503"):
    download.fetch(server.url, tmp_path)
  server.status = 200
  assert download.fetch(server.url, tmp_path).read_bytes() == DATA
  assert server.requests[-1]["Range"] == "bytes=1000000-"


def test_an_unknown_length_is_refused_unless_the_hash_is_known(server, tmp_path):
  server.tells_length = False
  with pytest.raises(OSError, match="does not tell the file's length"):
    download.fetch(server.url, tmp_path)
  assert not list(tmp_path.iterdir())
  sha256 = hashlib.sha256(DATA).hexdigest()
  assert download.fetch(server.url, tmp_path, sha256).read_bytes() == DATA


def test_a_file_with_another_hash_is_not_kept(server, tmp_path):
  with pytest.raises(ValueError, match=f"gave a file with SHA-256 .*, expected {'0' * 64}"):
    download.fetch(server.url, tmp_path, "0" * 64)
  assert not list(tmp_path.iterdir())
  # Nor one that was altered after it was downloaded.
  sha256 = hashlib.sha256(DATA).hexdigest()
  path = download.fetch(server.url, tmp_path, sha256)
  path.write_bytes(b"altered")
  with pytest.raises(ValueError, match="the copy was deleted"):
    download.fetch(server.url, tmp_path, sha256)
  assert download.fetch(server.url, tmp_path, sha256.upper()).read_bytes() == DATA


def test_a_server_that_is_not_there_is_named(server, tmp_path):
  with http.server.HTTPServer(("127.0.0.1", 0), Handler) as closed:
    url = f"http://127.0.0.1:{closed.server_address[1]}/a"
  with pytest.raises(OSError, match=rf"cannot reach {url} \(.*refused"):
    download.fetch(url, tmp_path)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "url", ["file:///etc/hostname", "ftp://a/b", "s3://a/b", "model.pt", "http:a"]
)
def test_other_schemes_are_refused(tmp_path, url):
  with pytest.raises(ValueError, match=rf"cannot download {url}: expected .*https://; .*its path"):
    download.fetch(url, tmp_path)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1:1/a"])
def test_a_redirection_leads_nowhere_but_to_http(server, tmp_path, url):
  server.redirect = url
  with pytest.raises(OSError):
    download.fetch(server.url, tmp_path)
  assert not list(tmp_path.iterdir())


def test_two_processes_do_not_write_the_same_file(server, tmp_path):
  drop(server, tmp_path)
  (part,) = tmp_path.glob("*.part")
  with open(part, "ab") as other:
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(OSError, match=r"another process is downloading .*model\.pt\.part"):
      download.fetch(server.url, tmp_path)
  assert download.fetch(server.url, tmp_path).read_bytes() == DATA
