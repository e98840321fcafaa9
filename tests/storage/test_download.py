"""Downloads of published files are complete, checked, and retried after an interruption."""

import concurrent.futures
import hashlib
import http.server
import pathlib
import random
import threading
import time

import pytest

from unseg_jax.storage import download
from unseg_jax.storage.cache import cache_folder

DATA = random.Random(0).randbytes(3_000_000)


class Handler(http.server.BaseHTTPRequestHandler):
  """Serves `server.data` according to the server's attributes; records each request's headers."""

  def do_GET(self):
    server = self.server
    server.requests.append(dict(self.headers))
    recovered = len(server.requests) > server.troubles
    if server.status != 200 and not recovered:
      return self.send_error(server.status)
    if server.redirect:
      self.send_response(302)
      self.send_header("Location", server.redirect)
      return self.end_headers()
    data = server.data
    self.send_response(200)
    if server.length_header:
      self.send_header(server.length_header, str(len(data)))
    if server.chunked:
      self.send_header("Transfer-Encoding", "chunked")
      data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
    self.end_headers()
    self.wfile.write(data if recovered else data[: server.stops_after])

  def log_message(self, *_):
    pass


@pytest.fixture
def server():
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    server.data, server.status, server.redirect = DATA, 200, None
    server.length_header, server.chunked = "Content-Length", False
    server.stops_after = None  # The number of bytes after which it drops the connection.
    server.troubles = float("inf")  # The number of requests that fail.
    server.requests = []
    server.url = f"http://127.0.0.1:{server.server_address[1]}/some/model.pt?raw=1"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()


@pytest.fixture(autouse=True)
def no_pause_between_attempts(monkeypatch):
  monkeypatch.setattr(time, "sleep", lambda _: None)


def drop(server, folder, after=1_000_000):
  """Interrupts a download; returns the error's message."""
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
  assert cache_folder() == tmp_path / "home" / ".cache" / "unseg_jax"


def test_a_file_keeps_its_name_in_the_cache(server, tmp_path):
  # Copies in users' existing caches are used again.
  digits = hashlib.sha256(server.url.encode()).hexdigest()[:12]
  (tmp_path / f"{digits}_model.pt").write_bytes(b"from before")
  assert download.fetch(server.url, tmp_path).read_bytes() == b"from before"
  assert not server.requests


def test_the_bytes_are_asked_for_as_they_were_published(server, tmp_path):
  download.fetch(server.url, tmp_path)
  assert server.requests[0]["Accept-Encoding"] == "identity"


def test_progress_is_shown(server, tmp_path, capsys):
  download.fetch(server.url, tmp_path)
  assert "3.00M/3.00M" in capsys.readouterr().err


def test_an_interrupted_download_is_reported_and_leaves_nothing(server, tmp_path):
  message = drop(server, tmp_path)
  assert message.startswith(f"cannot download {server.url}: ")
  assert "1000000 bytes read, 2000000 more expected" in message
  assert "run again; or download the file by other means and give its path" in message
  assert not list(tmp_path.iterdir())
  assert download.fetch(server.url, tmp_path).read_bytes() == DATA
  assert names(tmp_path) == ["model.pt"]


def test_a_broken_download_is_tried_twice_more(server, tmp_path):
  server.stops_after, server.troubles = 1_000_000, 2
  assert download.fetch(server.url, tmp_path).read_bytes() == DATA
  assert len(server.requests) == 3
  assert names(tmp_path) == ["model.pt"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(server, tmp_path):
  drop(server, tmp_path)
  server.data = DATA[::-1]
  assert download.fetch(server.url, tmp_path).read_bytes() == DATA[::-1]


def test_a_file_that_became_shorter_is_fetched_anew(server, tmp_path):
  drop(server, tmp_path)
  server.data = DATA[:1000]
  assert download.fetch(server.url, tmp_path).read_bytes() == DATA[:1000]


@pytest.mark.parametrize("status", [404, 403, 500, 206, 204])
def test_an_answer_other_than_a_file_is_reported_and_leaves_nothing(server, tmp_path, status):
  server.status = status
  with pytest.raises(OSError, match=rf"model\.pt\?raw=1: the server answered {status} .*address"):
    download.fetch(server.url, tmp_path)
  assert not list(tmp_path.iterdir())
  assert len(server.requests) == (3 if status == 500 else 1)  # A 404 is not retried.


def test_a_server_in_trouble_is_asked_again(server, tmp_path):
  server.status, server.troubles = 503, 2
  assert download.fetch(server.url, tmp_path).read_bytes() == DATA


def test_an_unknown_length_is_refused_unless_the_hash_is_known(server, tmp_path):
  server.length_header = None
  with pytest.raises(OSError, match="does not send the file's length"):
    download.fetch(server.url, tmp_path)
  assert not list(tmp_path.iterdir())
  sha256 = hashlib.sha256(DATA).hexdigest()
  assert download.fetch(server.url, tmp_path, sha256).read_bytes() == DATA


def test_a_length_header_may_be_in_lower_case(server, tmp_path):
  server.length_header = "content-length"
  assert download.fetch(server.url, tmp_path).read_bytes() == DATA


def test_a_file_sent_in_chunks_needs_no_length(server, tmp_path):
  server.length_header, server.chunked = None, True
  drop(server, tmp_path)
  assert not list(tmp_path.iterdir())
  assert download.fetch(server.url, tmp_path).read_bytes() == DATA


def test_a_file_with_another_hash_is_not_kept(server, tmp_path):
  sha256 = hashlib.sha256(DATA).hexdigest()
  with pytest.raises(ValueError) as error:
    download.fetch(server.url, tmp_path, "0" * 64)
  message = str(error.value)
  assert message.startswith(f"{server.url} does not have the published SHA-256 ")
  assert f"expected {'0' * 64}" in message and sha256 in message
  assert not list(tmp_path.iterdir())
  # A file that was altered after the download is not used either.
  path = download.fetch(server.url, tmp_path, sha256)
  path.write_bytes(b"altered")
  assert download.fetch(server.url, tmp_path, sha256.upper()).read_bytes() == DATA


def test_a_server_that_is_not_there_is_named(server, tmp_path):
  with http.server.HTTPServer(("127.0.0.1", 0), Handler) as closed:
    url = f"http://127.0.0.1:{closed.server_address[1]}/a"
  with pytest.raises(OSError, match=rf"cannot download {url}: .*refused: check the address"):
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


def test_a_redirection_to_the_file_is_followed(server, tmp_path):
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as first:
    first.requests, first.troubles, first.status, first.redirect = [], 0, 200, server.url
    threading.Thread(target=first.handle_request).start()
    url = f"http://127.0.0.1:{first.server_address[1]}/latest"
    assert download.fetch(url, tmp_path).read_bytes() == DATA
  assert names(tmp_path) == ["latest"]


def test_two_downloads_at_once_both_give_the_whole_file(server, tmp_path):
  with concurrent.futures.ThreadPoolExecutor(2) as executor:
    paths = list(executor.map(download.fetch, [server.url] * 2, [tmp_path] * 2))
  assert [path.read_bytes() for path in paths] == [DATA] * 2
  assert names(tmp_path) == ["model.pt"]
