"""The wheel contains everything that it needs outside a checkout."""

import os
import re
import subprocess
import sys
import zipfile

import pytest
from whole_runs import ROOT

PIP = [sys.executable, "-m", "pip"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  """Builds the wheel of the committed files."""
  folder = tmp_path_factory.mktemp("wheel")
  source = folder / "source"
  subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
  build = [*PIP, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
  subprocess.run([*build, str(source)], check=True)
  (path,) = folder.glob("unseg_jax-*.whl")
  return path


def test_the_wheel_carries_the_package_the_converter_the_configs_and_their_data(wheel):
  names = set(zipfile.ZipFile(wheel).namelist())
  code = {
    str(path.relative_to(ROOT))
    for folder in ("unseg_jax", "checkpoints_convert")
    for path in (ROOT / folder).rglob("*.py")
  }
  configs = {f"unseg_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
  templates = {
    str(path.relative_to(ROOT))
    for folder in ("demo/templates", "reporting/templates", "export/web")
    for path in (ROOT / "unseg_jax" / folder).rglob("*")
    if path.is_file()
  }
  pretrained = {
    "unseg_jax/pretrained/README.md",
    "unseg_jax/pretrained/dcgan_faces.LICENSE.txt",
    "unseg_jax/pretrained/dcgan_faces.safetensors",
    "unseg_jax/pretrained/example/astronaut_head.png",
    "unseg_jax/pretrained/example/astronaut_head_mask.png",
  }
  assert len(configs) > 5 and templates
  assert code | configs | templates | pretrained <= names
  assert not any(name.startswith(("tests/", "configs/", "benchmarks/")) for name in names)


def test_every_dependency_has_a_version_that_is_known_to_work(wheel):
  (metadata,) = (n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("/METADATA"))
  required = zipfile.ZipFile(wheel).read(metadata).decode()
  lines = re.findall(r"^Requires-Dist: ([\w.-]+).*?(?:extra == ['\"](\w+)['\"])?$", required, re.M)
  names = {name.lower().replace("_", "-") for name, extra in lines if extra in ("", "test")}
  constraints = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
  assert len(names) > 40
  # TensorFlow's other build is for other machines.
  assert names - set(re.findall(r"^([\w.-]+)==\S+$", constraints, re.M)) == {"tensorflow"}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
  """Returns a function that runs Python where the wheel is installed, without a checkout."""
  site, elsewhere = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
  subprocess.run([*PIP, "install", "-q", "--no-deps", "--target", site, wheel], check=True)

  def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert not (elsewhere / "configs").exists()
    return done

  program = "import unseg_jax.configs, checkpoints_convert as c; print(unseg_jax.configs, c)"
  assert run("-c", program).stdout.count(str(site)) == 2
  return run


def test_without_a_checkout_a_config_is_found_by_its_name_in_one(installed):
  done = installed("-m", "unseg_jax.main", "--config=configs/biggan.py:128")
  assert done.returncode == 1, done.stderr
  assert "python -m checkpoints_convert.convert --variant=biggan-deep-128" in done.stderr
  missing = installed("-m", "unseg_jax.main", "--config=configs/biggan_shallow.py")
  assert missing.returncode != 0 and "biggan_shallow.py" in missing.stderr


def test_without_a_checkout_a_checkpoint_is_converted(installed, tmp_path):
  output = tmp_path / "converted.safetensors"
  source = ROOT / "tests" / "golden" / "dcgan.pth"
  flags = ("--format=dcgan", f"--source={source}", f"--output={output}")
  done = installed("-m", "checkpoints_convert.convert", *flags)
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith(f"wrote {output}")


def test_importing_the_package_starts_neither_tensorflow_nor_a_backend():
  program = (
    "import sys, unseg_jax, unseg_jax.inference.segmenter, unseg_jax.predict\n"
    "from jax._src import xla_bridge\n"
    "assert 'tensorflow' not in sys.modules\n"
    "assert not xla_bridge.backends_are_initialized()\n"
  )
  subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
