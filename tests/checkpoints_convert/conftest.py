"""A web server that publishes checkpoints."""

import time
import types

import file_server
import pytest


@pytest.fixture
def served(tmp_path_factory, monkeypatch):
  """A web server of an empty folder; downloads go to a separate cache."""
  folder = tmp_path_factory.mktemp("served")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
  monkeypatch.setattr(time, "sleep", lambda _: None)  # Seconds between two download attempts.
  with file_server.serve(folder) as url:
    yield types.SimpleNamespace(folder=folder, url=url)
