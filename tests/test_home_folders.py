"""`~` means the home folder in every path of a user, even where no shell expands it."""

import os
import pwd
import shutil

import file_server
import numpy as np
import pytest
from PIL import Image
from whole_runs import GOLDEN, ROOT, make_config

from checkpoints_convert import contact_sheet, convert
from unseg_jax import config_files, generators, pipeline, predict, report
from unseg_jax.demo import server
from unseg_jax.evaluation import benchmarks, folders, unlabelled
from unseg_jax.export.files import export
from unseg_jax.images import reading
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.reporting import contents
from unseg_jax.storage import download, places
from unseg_jax.storage.file_trees import open_tree
from unseg_jax.synthesis import latents

EXAMPLES = ROOT / "unseg_jax" / "pretrained" / "example"
pytestmark = pytest.mark.usefixtures("compile_quickly")


@pytest.fixture
def home(copied, generator, tmp_path, monkeypatch):
  """Creates a home folder with a run, a generator, a checkpoint and images, and works elsewhere."""
  folder = tmp_path / "home"
  shutil.move(copied, folder / "run")
  shutil.copy(generator, folder / "random.safetensors")
  shutil.copy(GOLDEN / "dcgan.pth", folder)
  for kind, name in (("images", "astronaut_head.png"), ("masks", "astronaut_head_mask.png")):
    (folder / kind).mkdir()
    shutil.copy(EXAMPLES / name, folder / kind / "head.png")
  np.save(folder / "latents.npy", np.zeros((3, 20), np.float32))
  shutil.copy(ROOT / "tests" / "tiny_config.py", folder)
  (tmp_path / "elsewhere").mkdir()
  monkeypatch.chdir(tmp_path / "elsewhere")
  monkeypatch.setenv("HOME", str(folder))
  yield folder
  assert not list((tmp_path / "elsewhere").iterdir())


def test_home_folders_of_this_and_of_other_users(home):
  user = pwd.getpwuid(os.getuid())
  assert places.path("~/run") == places.local("~/run") == home / "run"
  assert str(places.path(f"~{user.pw_name}/run")) == os.path.join(user.pw_dir, "run")
  # No user has this name, so it is a file name.
  assert str(places.path("~nobody-of-this-name")) == "~nobody-of-this-name"
  assert str(places.path("runs/~")) == "runs/~"


def test_in_a_config(home):
  config = make_config("~/random.safetensors")
  config.convert_command = "make it"
  config.evaluate.folders = (("heads", "~/images", "~/masks", True),)
  config.report.pictures = ("~/images/head.png",)
  pipeline.run(config, "~/run", tuple(pipeline.STAGES))
  assert "heads" in (home / "run" / "metrics.json").read_text()
  evaluated = make_config("")
  evaluated.segmenter = "~/run"
  evaluated.evaluate.folders = config.evaluate.folders
  pipeline.run(evaluated, "~/evaluated", ("evaluate",))
  assert (home / "evaluated" / "metrics.json").exists()


def test_of_commands(home):
  assert predict.predict("~/run", "~/images", "~/made", False, background="~/masks/head.png") == 0
  assert (home / "made" / "head_composite.png").exists()
  assert report.make(["~/run"], "~/page.html") == home / "page.html"
  assert report.make(["~/run"], None) == home / "run" / "report.html"
  assert export("~/run", "~/run.stablehlo", "stablehlo") == home / "run.stablehlo"
  assert "~" not in (home / "run.stablehlo.json").read_text()
  assert config_files.find("~/tiny_config.py:faces") == f"{home}/tiny_config.py:faces"
  with pytest.raises(ValueError, match=f"--runtime={home}/dcgan.pth"):
    export("~/run", "~/page", "web", "~/dcgan.pth")


def test_of_the_converter(home):
  convert.convert_file("~/dcgan.pth", "~/faces.safetensors", "dcgan")
  with pytest.raises(FileExistsError):
    convert.convert_file("~/dcgan.pth", "~/faces.safetensors", "dcgan")
  sheet = contact_sheet.draw("~/faces.safetensors", 1)
  assert sheet == home / "faces_samples.png" and sheet.exists()
  (home / "settings.json").write_text('{"latent_size": 3}')
  assert convert.read_settings("~/settings.json") == {"latent_size": 3}


def test_of_the_demo(home, monkeypatch):
  pytest.importorskip("gradio")
  from unseg_jax.demo import page

  class Built(Exception):
    pass

  def build(folder):
    raise Built(folder)

  monkeypatch.setattr(page, "build", build)
  with pytest.raises(Built, match=str(home)), server.serve("~", "127.0.0.1", 7860):
    pass


def test_in_python(home):
  segmenter = Segmenter.restore("~/run")
  segmenter.save("~/segmenter.safetensors")
  with Image.open(home / "images" / "head.png") as opened:
    picture = np.asarray(opened.convert("RGB"))
  np.testing.assert_array_equal(
    Segmenter.restore("~/segmenter.safetensors")("~/images/head.png"), segmenter(picture)
  )
  assert generators.load("~/random.safetensors").image_size == 64
  assert reading.read_picture("~/images/head.png").shape == picture.shape
  assert reading.read_mask("~/masks/head.png").any()
  assert contents.find_pictures(["~/images"]) == [home / "images" / "head.png"]
  assert len(folders.open_pairs("~/images", "~/masks")) == 1
  assert len(folders.paired("~/images", "~/masks")) == 1
  assert unlabelled.open_pictures("~/images", "").count == 1
  assert latents.read("~/latents.npy", (20,)).shape == (3, 20)
  assert open_tree("~/images").names() == {"head.png"}
  with pytest.raises(FileNotFoundError, match=str(home)):
    benchmarks.open_pairs(benchmarks.get("ecssd"), "~")


def test_of_downloads(home):
  with file_server.serve(home / "images") as url:
    fetched = download.fetch(f"{url}/head.png", "~/downloads")
  assert fetched.parent == home / "downloads" and fetched.exists()
