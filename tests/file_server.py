"""A web server of static files for tests."""

import contextlib
import functools
import http.server
import threading


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
  def log_message(self, *_):
    pass


@contextlib.contextmanager
def serve(folder):
  """Serves a folder on the loopback address; yields its URL without a slash at the end."""
  handler = functools.partial(_QuietHandler, directory=folder)
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
      yield f"http://127.0.0.1:{server.server_port}"
    finally:
      server.shutdown()
      thread.join()
