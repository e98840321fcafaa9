"""The notebooks run from top to bottom, as on Colab but small, and are checked as committed."""

import base64
import io
import os
import pathlib
import re
import shutil

import file_server
import nbformat
import pytest
import tiny_config
from nbclient import NotebookClient
from PIL import Image

pytestmark = pytest.mark.usefixtures("compile_quickly")
ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = ("quickstart.ipynb", "unseg_tpu.ipynb")
EXAMPLE = ROOT / "unseg_jax" / "pretrained" / "example"
WIDGETS = "application/vnd.jupyter.widget-state+json"
HUB = "https://colab.research.google.com"

MOVE_THE_SLIDER = """
before = view.value
slider.value = 0.0
assert view.value != before
"""


def read(name):
  return nbformat.read(ROOT / "colab" / name, as_version=4)


def parameters_cell(notebook):
  (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
  return cell


@pytest.fixture
def execute(tmp_path, monkeypatch):
  """Returns a function that runs a notebook with other parameters, and then additional cells."""
  path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
  variables = {
    "PYTHONPATH": path,
    "IPYTHONDIR": str(tmp_path / "ipython"),
    "XDG_CACHE_HOME": str(tmp_path / "cache"),
    "NO_PROXY": "127.0.0.1",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    # Compiling takes nearly all of the time.
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
  }
  for name, value in variables.items():
    monkeypatch.setenv(name, value)

  def run(name, parameters, again=(), then=""):
    notebook = read(name)
    parameters_cell(notebook).source = parameters
    for cell in [cell for cell in notebook.cells if cell.id in again]:
      notebook.cells.append(nbformat.v4.new_code_cell(cell.source, id=f"{cell.id}-again"))
    notebook.cells.append(nbformat.v4.new_code_cell(then, id="then"))
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    return notebook

  return run


@pytest.fixture
def published(monkeypatch):
  """The URL of a small checkpoint."""
  with file_server.serve(ROOT / "tests" / "golden") as url:
    yield f"{url}/dcgan.pth"


def tiny_settings():
  """Returns the tiny config by dotted names for the notebooks' OVERRIDES, with fewer steps."""
  config = tiny_config.get_config()
  config.search.steps = config.train.steps = 2
  settings = {}

  def collect(prefix, values):
    for name, value in values.items():
      if isinstance(value, dict):
        collect(f"{prefix}{name}.", value)
      else:
        settings[prefix + name] = value

  for stage in ("search", "generate", "train"):
    collect(f"{stage}.", config[stage].to_dict())
  return settings


def parameters(**values):
  """Returns the source of a parameters cell."""
  return "\n".join(f"{name} = {value!r}" for name, value in values.items())


def outputs(notebook, name):
  """Returns the display output and the printed output of a cell."""
  (cell,) = [cell for cell in notebook.cells if cell.id == name]
  displayed = [output["data"] for output in cell.outputs if "data" in output]
  printed = "".join(output["text"] for output in cell.outputs if output.output_type == "stream")
  return displayed, printed


def displayed_pictures(notebook, name):
  """Returns the images that a cell displayed; checks that none is uniform."""
  pictures = [
    decode(data["image/png"]) for data in outputs(notebook, name)[0] if "image/png" in data
  ]
  assert pictures, f"the cell {name} displayed no picture"
  assert all(picture.convert("L").getextrema() != (255, 255) for picture in pictures)
  return pictures


def decode(text):
  return Image.open(io.BytesIO(base64.b64decode(text)))


def assert_taken_along(notebook):
  """Checks that the exported file gives, with onnxruntime, the mask that it shows."""
  displayed_pictures(notebook, "export")
  size, same = re.search(r"onnx, (\d+) kB: ([\d.]+)%", outputs(notebook, "export")[1]).groups()
  assert float(size) > 0 and float(same) > 99


def test_the_quickstart_runs_on_any_machine(execute):
  notebook = execute(
    "quickstart.ipynb",
    parameters(
      REPOSITORY="nowhere",  # The package is installed already.
      WORKDIR="run",
      OVERRIDES=tiny_settings(),
      PICTURE="example:astronaut_head.png",
    ),
    then=MOVE_THE_SLIDER,
  )
  (direction,) = displayed_pictures(notebook, "search")
  assert direction.size == (5 * 64, 6 * 64)  # Four shifts and the mask, for six latents.
  (markup,) = outputs(notebook, "animation")[0]
  animation = decode(markup["text/html"].partition("base64,")[2].partition('"')[0])
  assert animation.format == "WEBP" and animation.n_frames > 1
  widgets = notebook.metadata.widgets[WIDGETS].state.values()
  (view,) = [widget for widget in widgets if widget.model_name == "ImageModel"]
  assert decode(view["buffers"][0]["data"]).size == (6 * 64, 3 * 64)
  (pairs,) = displayed_pictures(notebook, "generate")
  assert pairs.width == 12 * 66
  displayed_pictures(notebook, "curves")
  displayed_pictures(notebook, "segment")
  assert_taken_along(notebook)
  (metrics,) = outputs(notebook, "metrics")[0]
  assert "IoU" in metrics["text/markdown"] and "synthetic" in metrics["text/markdown"]


def test_the_tpu_notebook_runs_and_continues(execute, published, tmp_path):
  pictures, masks = tmp_path / "data/ECSSD/images", tmp_path / "data/ECSSD/ground_truth_mask"
  for folder, name in ((pictures, "astronaut_head.png"), (masks, "astronaut_head_mask.png")):
    folder.mkdir(parents=True)
    shutil.copy(EXAMPLE / name, folder / "0001.png")
  register = f"""
from checkpoints_convert import convert, dcgan
from checkpoints_convert.variants import Variant

dcgan.VARIANTS["golden"] = Variant({published!r}, {{}})
convert.VARIANT_FORMATS["golden"] = "dcgan"
"""
  notebook = execute(
    "unseg_tpu.ipynb",
    register
    + parameters(
      REPOSITORY="nowhere",
      GENERATOR="golden",
      WORKDIR="drive/golden",
      DATA_ROOT="data",
      BENCHMARKS=("ecssd",),
      PICTURE="example:astronaut_head.png",
      OVERRIDES=tiny_settings() | {"search.restarts": 2, "generate.num_images.train": 0},
    ),
    again=("convert", "search", "generate", "train", "evaluate"),
    then=MOVE_THE_SLIDER,
  )
  for name in ("convert", "search", "generate", "curves", "segment"):
    displayed_pictures(notebook, name)
  assert_taken_along(notebook)
  assert "golden on 2 x cpu" in outputs(notebook, "config")[1]
  assert outputs(notebook, "search")[1].count("chosen") == 1
  for stage in ("search", "generate", "train", "evaluate"):
    assert "complete, skipped" in outputs(notebook, f"{stage}-again")[1]
  ((metrics,),) = [outputs(notebook, "evaluate-again")[0]]
  assert "synthetic" in metrics["text/markdown"] and "ecssd" in metrics["text/markdown"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_committed_as_it_was_written(name):
  notebook = read(name)
  nbformat.validate(notebook)
  assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
  code = [cell for cell in notebook.cells if cell.cell_type == "code"]
  assert not any(cell.outputs or cell.execution_count for cell in code)
  assert "widgets" not in notebook.metadata
  # Ids, which stay the same when a cell is edited.
  assert all(cell.id.replace("-", "").isalpha() for cell in notebook.cells)
  assert "REPOSITORY = " in parameters_cell(notebook).source


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_badge_opens_the_notebook_on_colab(name):
  link = f"{HUB}/github/unseg-jax/unseg-jax/blob/main/colab/{name}"
  badge = f"[![Open in Colab]({HUB}/assets/colab-badge.svg)]({link})"
  assert badge in read(name).cells[0].source
  assert badge in (ROOT / "README.md").read_text()
