"""The server: many visitors at once, and no files or memory left behind."""

import concurrent.futures
import gc
import os
import pathlib
import re
import signal
import sys
import tracemalloc

import numpy as np
import pytest
import requests
from PIL import Image
from ports import free_port
from whole_runs import ROOT, run_module, start_python, wait_until

from unseg_jax.demo import html, limits, picture, runs, server

gradio_client = pytest.importorskip("gradio_client", reason="the page needs Gradio")
pytestmark = pytest.mark.usefixtures("compile_quickly")

NOISE = (1200, 1600, 3)
SETTINGS = (runs.SHIPPED, False, "none", 0.5, "#2060a0")


def ask(url, path):
  """Uploads an image as a new visitor; returns the page's answer."""
  client = gradio_client.Client(url, verbose=False)
  try:
    return client.predict(gradio_client.handle_file(str(path)), *SETTINGS, api_name="/segment")
  finally:
    client.close()


def expected(path):
  segmented = picture.segment(path, *SETTINGS[:3])
  return html.views(*picture.views(picture.small(segmented), 0.5, picture.colour(SETTINGS[4])))


@pytest.fixture
def photographs(photograph, tmp_path):
  """Twenty different crops of one image."""
  image, paths = Image.open(photograph), []
  for number in range(20):
    left, top = 2 * (number % 5), 3 * (number // 5)
    path = tmp_path / f"{number}.png"
    image.crop((left, top, left + 96, top + 96)).save(path)
    paths.append(path)
  return paths


@pytest.fixture
def noise(tmp_path):
  """An image large enough that a leak of its memory is measurable."""
  path = tmp_path / "noise.png"
  Image.fromarray(np.random.default_rng(0).integers(0, 255, NOISE, np.uint8)).save(path)
  return path


def test_of_twenty_uploads_at_once_each_gets_its_own_answer(served, photographs):
  with concurrent.futures.ThreadPoolExecutor(20) as visitors:
    answers = list(visitors.map(lambda path: ask(served.local_url, path), photographs))
  assert len(set(answers)) == 20
  for path, views in zip(photographs, answers, strict=True):
    assert views == expected(path)


def test_a_file_that_is_too_large_is_not_taken(served, photograph):
  url = f"{served.local_url.rstrip('/')}/gradio_api/upload"
  large = photograph.read_bytes() + bytes(limits.MEGABYTES * 2**20)
  answer = requests.post(url, files={"files": ("large.png", large)}, timeout=60)
  assert answer.status_code == 413 and f"{limits.MEGABYTES * 2**20} bytes" in answer.text
  assert not any(pathlib.Path(os.environ["GRADIO_TEMP_DIR"]).rglob("large.png"))


def test_a_refused_upload_is_a_message_to_programs_too(served, refused):
  for path in refused.values():
    with pytest.raises(gradio_client.exceptions.AppError, match=rf"^{path.name} (is not|has)"):
      ask(served.local_url, path)


def call(url, *data):
  """Calls the page by plain HTTP; returns the events of the answer."""
  url = f"{url.rstrip('/')}/gradio_api/call/segment"
  event = requests.post(url, json={"data": data}, timeout=60).json()["event_id"]
  return requests.get(f"{url}/{event}", timeout=60).text


def test_only_uploads_and_listed_segmenters_are_read(served, photograph):
  def file(path):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}

  with photograph.open("rb") as contents:
    url = f"{served.local_url.rstrip('/')}/gradio_api/upload"
    (uploaded,) = requests.post(url, files={"files": contents}, timeout=60).json()
  for path, event in ((uploaded, "complete"), (photograph, "error")):
    assert f"event: {event}" in call(served.local_url, file(path), *SETTINGS), path
  client = gradio_client.Client(served.local_url, verbose=False)
  with pytest.raises(gradio_client.exceptions.AppError, match="not in the list of choices"):
    settings = (str(ROOT), *SETTINGS[1:])
    client.predict(gradio_client.handle_file(str(photograph)), *settings, api_name="/segment")


def test_nothing_is_left_when_the_server_ends(tmp_path, photograph):
  with server.serve(str(tmp_path), "127.0.0.1", free_port()) as served:
    folder = pathlib.Path(os.environ["GRADIO_TEMP_DIR"])
    ask(served.local_url, photograph)
    assert any(folder.rglob("*.png"))
  assert not folder.exists()


@pytest.fixture
def command(tmp_path):
  """The command in its own process, with this folder for its files; and the page's URL."""
  code = "import runpy; runpy.run_module('unseg_jax.demo', run_name='__main__')"
  port = free_port()
  process = start_python(code, f"--port={port}", TMPDIR=tmp_path)
  try:
    assert process.stdout.readline().startswith(f"open http://127.0.0.1:{port} ")
    yield process, f"http://127.0.0.1:{port}/"
  finally:
    process.kill()
    process.communicate()  # Closes its pipes, too.


@pytest.mark.slow
def test_stopped_by_the_machine_the_command_leaves_nothing(command, tmp_path, photograph):
  process, url = command
  ask(url, photograph)
  assert list(tmp_path.rglob("astronaut_head.png"))
  process.terminate()
  assert process.wait(timeout=60) == 128 + signal.SIGTERM
  assert not list(tmp_path.rglob("*.png"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_after_twenty_uploads_at_once_memory_is_as_before(command, noise):
  process, url = command

  def resident():
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1))

  ask(url, noise)
  first = resident()
  for _ in range(3):
    with concurrent.futures.ThreadPoolExecutor(20) as visitors:
      list(visitors.map(lambda _: ask(url, noise), range(20)))
    wait_until(lambda: resident() < 1.25 * first, "the server is larger than it was")


def test_without_a_run_the_page_says_how_to_make_one(tmp_path):
  with server.serve(str(tmp_path), "127.0.0.1", free_port()) as served:
    client = gradio_client.Client(served.local_url, verbose=False)
    answer = client.predict(None, 0, 5, api_name="/explore")
  assert "python -m unseg_jax.main --config=configs/dcgan_faces.py --stages=search" in answer


def test_only_other_addresses_than_the_loopback_come_with_a_warning():
  assert server.describe("127.0.0.1", 7860).startswith("open http://127.0.0.1:7860 ")
  assert "everybody" not in server.describe("127.0.0.1", 7860)
  assert "everybody who can reach this machine" in server.describe("0.0.0.0", 7860)
  assert "no password" in server.describe("0.0.0.0", 7860)


def test_a_port_that_is_taken_is_one_message(served, tmp_path):
  port = served.local_url.rstrip("/").rpartition(":")[2]
  done = run_module("unseg_jax.demo", tmp_path, f"--port={port}")
  assert done.returncode == 1 and done.stdout == ""
  assert done.stderr.startswith("error: ") and port in done.stderr


def test_without_gradio_the_way_to_install_it_is_named(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "gradio", None)
  with (
    pytest.raises(ImportError, match=r"pip install 'unseg-jax\[demo\]'"),
    server.serve(str(tmp_path), "127.0.0.1", free_port()),
  ):
    pass


@pytest.mark.slow
def test_when_visitors_have_gone_nothing_of_their_pictures_is_held(served, noise):
  held, others = [], set(served.state_holder.session_data)
  for _ in range(3):
    with concurrent.futures.ThreadPoolExecutor(20) as visitors:
      list(visitors.map(lambda _: ask(served.local_url, noise), range(20)))
    wait_until(lambda: set(served.state_holder.session_data) <= others, "a session is still kept")
    gc.collect()
    if not tracemalloc.is_tracing():
      tracemalloc.start()
    held.append(tracemalloc.get_traced_memory()[0])
  tracemalloc.stop()
  assert held[2] - held[1] < np.prod(NOISE), held
