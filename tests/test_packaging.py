"""The wheel: what it must carry to work away from the checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_wheel_carries_the_generator_its_licence_and_the_templates(tmp_path):
  source = tmp_path / "source"
  subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
  command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
  subprocess.run([*command, "-w", str(tmp_path), str(source)], check=True)
  (wheel,) = tmp_path.glob("unseg_jax-*.whl")
  names = set(zipfile.ZipFile(wheel).namelist())
  modules = {str(path.relative_to(ROOT)) for path in (ROOT / "unseg_jax").rglob("*.py")}
  data = {
    "unseg_jax/reporting/templates/base.html",
    "unseg_jax/reporting/templates/comparison.html",
    "unseg_jax/reporting/templates/parts.html",
    "unseg_jax/reporting/templates/report.html",
    "unseg_jax/reporting/templates/style.css",
    "unseg_jax/pretrained/README.md",
    "unseg_jax/pretrained/dcgan_faces.LICENSE.txt",
    "unseg_jax/pretrained/dcgan_faces.safetensors",
    "unseg_jax/pretrained/example/astronaut_head.png",
    "unseg_jax/pretrained/example/astronaut_head_mask.png",
  }
  assert modules | data <= names
  assert not any(name.startswith(("tests/", "configs/")) for name in names)


def test_importing_the_package_starts_neither_tensorflow_nor_matplotlib_nor_a_backend():
  program = (
    "import sys, unseg_jax, unseg_jax.predict\n"
    "import unseg_jax.segmentation.segmenter, unseg_jax.reporting.report\n"
    "from jax._src import xla_bridge\n"
    "assert not {'tensorflow', 'matplotlib'} & sys.modules.keys()\n"
    "assert not xla_bridge.backends_are_initialized()\n"
  )
  subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
