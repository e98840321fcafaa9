"""Fixtures of the demo's tests: a folder of runs, the served page, and files to upload."""

import shutil
import struct
import zlib

import pytest
from ports import free_port
from whole_runs import ROOT, make_config

from unseg_jax import pipeline
from unseg_jax.demo import server


@pytest.fixture(scope="session")
def runs(generator, finished, tmp_path_factory):
  """A folder with a finished run, and with a search for two directions."""
  folder = tmp_path_factory.mktemp("runs")
  shutil.copytree(finished, folder / "whole")
  config = make_config(generator)
  config.search.directions = 2
  config.generate.update({"agreement": 0.5, "histogram_maxima": 2, "area": (0.01, 1.0)})
  pipeline.run(config, folder / "light_and_dark", ("search",))
  return folder


@pytest.fixture(scope="module")
def served(runs, compile_quickly):
  """The served page, a `gradio.Blocks` with these runs; `local_url` is its address."""
  pytest.importorskip("gradio", reason="the page needs Gradio")
  with server.serve(str(runs), "127.0.0.1", free_port()) as page:
    yield page


@pytest.fixture
def photograph():
  """The file of the shipped example."""
  return ROOT / "unseg_jax" / "pretrained" / "example" / "astronaut_head.png"


@pytest.fixture(scope="session")
def refused(tmp_path_factory):
  """Files that the page must refuse, by the reason."""
  folder = tmp_path_factory.mktemp("refused")
  text, bomb = folder / "notes.png", folder / "bomb.png"
  text.write_text("This is not an image, despite its name.\n" * 20)
  bomb.write_bytes(_blank_png(30_000))
  return {"text": text, "bomb": bomb}


def _blank_png(side):
  """Returns a black square of one bit a pixel: 900 million pixels take half a megabyte."""

  def chunk(name, data):
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check

  header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
  rows = zlib.compress(bytes(side * (1 + side // 8)), 1)
  parts = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
  return b"\x89PNG\r\n\x1a\n" + parts
