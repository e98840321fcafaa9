"""Object stores for the tests: real servers on loopback that can be killed and faulty."""

import contextlib
import http.client
import http.server
import socket
import subprocess
import sys
import threading
import time
import urllib.request

from ports import free_port

from unseg_jax.storage import places

# Keeps its objects when the server dies, as a real store does.
S3 = """
import sys
from moto.server import main
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""
# Its MIME parser mistakes a carriage return at an object's end for a part of the boundary line.
GCS = """
import sys
from gcp_storage_emulator import server
decode = server._decode_raw_data
def with_whole_lines(raw_data, handler):
  data = decode(raw_data, handler)
  last = b"\\n--==0==--"
  return data[:-len(last)] + b"\\r" + last if data and data.endswith(last) else data
server._decode_raw_data = with_whole_lines
server.create_server("127.0.0.1", int(sys.argv[1]), in_memory=not sys.argv[2:],
              data_dir=sys.argv[2] if sys.argv[2:] else None).run()
"""


def wait_for(port, seconds=30):
  deadline = time.monotonic() + seconds
  while True:
    try:
      return socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
      if time.monotonic() > deadline:
        raise
      time.sleep(0.05)


@contextlib.contextmanager
def server(kind):
  """Runs a store with the bucket `bucket`; yields its address, `http://host:port`."""
  port = free_port()
  process = subprocess.Popen(
    [sys.executable, "-c", {"s3": S3, "gs": GCS}[kind], str(port)],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  try:
    wait_for(port)
    address = f"http://127.0.0.1:{port}"
    make_bucket(kind, address)
    yield address
  finally:
    process.kill()
    process.wait()


def make_bucket(kind, address):
  if kind == "s3":
    request = urllib.request.Request(f"{address}/bucket", method="PUT")
  else:
    request = urllib.request.Request(
      f"{address}/storage/v1/b?project=tests", b'{"name": "bucket"}', method="POST"
    )
    request.add_header("Content-Type", "application/json")
  urllib.request.urlopen(request, timeout=10).close()


def environment(kind, address, cache):
  """Returns the environment for using the store, with a separate cache folder."""
  of_kind = {
    "s3": {
      "AWS_ENDPOINT_URL": address,
      "AWS_ACCESS_KEY_ID": "anybody",
      "AWS_SECRET_ACCESS_KEY": "anything",
      "AWS_DEFAULT_REGION": "us-east-1",
    },
    "gs": {"STORAGE_EMULATOR_HOST": address},
  }
  return of_kind[kind] | {"XDG_CACHE_HOME": str(cache)}


def use(kind, address, machine, monkeypatch):
  """Simulates a fresh machine with this cache folder that can reach the store."""
  for name, value in environment(kind, address, machine).items():
    monkeypatch.setenv(name, value)
  move_to(machine, monkeypatch)


def move_to(machine, monkeypatch):
  """Simulates a fresh machine with this cache folder."""
  places.release()
  monkeypatch.setenv("XDG_CACHE_HOME", str(machine))


class Proxy:
  """A proxy of a store: `down` cuts every connection; `faulty` fails each `faulty`-th with 503."""

  def __init__(self, address):
    self.down, self.faulty, self.requests, self.refused = False, 0, 0, 0
    self.counting = threading.Lock()
    host, port = address.removeprefix("http://").split(":")
    proxy = self

    class Handler(http.server.BaseHTTPRequestHandler):
      protocol_version = "HTTP/1.1"

      def relay(self):
        body = self.body()
        with proxy.counting:
          proxy.requests += 1
          refuse = proxy.faulty and proxy.requests % proxy.faulty == 0
          proxy.refused += bool(refuse)
        if proxy.down:
          self.close_connection = True
          return self.connection.close()
        if refuse:
          return self.answer(503, {}, b"slow down")
        upstream = http.client.HTTPConnection(host, int(port), timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() != "transfer-encoding"}
        upstream.request(self.command, self.path, body, headers)
        response = upstream.getresponse()
        self.answer(response.status, dict(response.getheaders()), response.read())
        upstream.close()

      def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
          parts = []
          while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
          self.rfile.readline()
          return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

      def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
          if name.lower() not in ("transfer-encoding", "connection", "server", "date"):
            if name.lower() != "content-length" or self.command == "HEAD":
              self.send_header(name, value)
        if self.command != "HEAD":
          self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
          self.wfile.write(body)

      def log_message(self, *arguments):
        pass

      do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = relay

    self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    self.server.daemon_threads = True
    self.address = f"http://127.0.0.1:{self.server.server_port}"
    threading.Thread(target=self.server.serve_forever, daemon=True).start()

  def close(self):
    self.server.shutdown()
    self.server.server_close()
