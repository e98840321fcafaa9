"""A web server that publishes checkpoints."""

import functools
import http.server
import threading
import time

import pytest


@pytest.fixture
def served(tmp_path_factory, monkeypatch):
  """A web server of an empty folder; what is downloaded goes to a cache of its own."""
  folder = tmp_path_factory.mktemp("served")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
  monkeypatch.setattr(time, "sleep", lambda _: None)  # Between two attempts to download.
  handler = functools.partial(_QuietHandler, directory=folder)
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    server.folder, server.url = folder, f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
  def log_message(self, *_):
    pass
