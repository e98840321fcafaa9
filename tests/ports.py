"""Ports of this machine, for the servers that tests start."""

import socket


def free_port():
  """Finds a port of the loopback address that nobody listens on."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]
