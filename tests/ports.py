"""Ports of this machine for test servers."""

import socket


def free_port():
  """Returns an unused port of the loopback address."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]
