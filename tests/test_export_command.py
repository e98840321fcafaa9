"""`python -m unseg_jax.export` as typed, and `predict` with the exported file."""

import functools
import shutil

import numpy as np
import pytest
from PIL import Image
from whole_runs import ROOT, finish, run_module, start_python

from unseg_jax import Segmenter, export

EXAMPLE = ROOT / "unseg_jax" / "pretrained" / "example"


run_export = functools.partial(run_module, "unseg_jax.export")

# Runs the command, and then reports whether JAX has started a device.
PREDICT = """
import runpy, sys
try:
  runpy.run_module("unseg_jax.predict", run_name="__main__", alter_sys=True)
except SystemExit as left:
  assert not left.code
from jax._src import xla_bridge
print("JAX computed:", xla_bridge.backends_are_initialized())
"""


def predict(segmenter, output, picture):
  flags = (f"--segmenter={segmenter}", f"--output={output}", f"--input={picture}")
  done = finish(start_python(PREDICT, *flags))
  assert done.returncode == 0, done.stderr
  mask = np.asarray(Image.open(output / "photo_mask.png"))
  opacity = np.asarray(Image.open(output / "photo_cutout.png"))[..., 3]
  return done.stdout, mask, opacity.astype(int)


def test_predict_finds_the_same_masks_with_the_exported_file_and_without_jax(finished, tmp_path):
  shutil.copy(EXAMPLE / "astronaut_head.png", tmp_path / "photo.png")
  done = run_export(tmp_path, f"--segmenter={finished}", "--output=made/segmenter.onnx")
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith("wrote made/segmenter.onnx: ") and done.stderr == ""

  exported = tmp_path / "made" / "segmenter.onnx"
  printed, mask, opacity = predict(exported, tmp_path / "exported", tmp_path / "photo.png")
  assert "JAX computed: False" in printed
  printed, expected_mask, expected = predict(finished, tmp_path / "run", tmp_path / "photo.png")
  assert "JAX computed: True" in printed
  # Rounding may change probabilities near 0.5, or near a boundary of the 256 opacities.
  assert (mask == expected_mask).mean() > 0.999
  assert np.abs(opacity - expected).max() <= 1


def test_what_cannot_be_exported_is_one_clear_error(tmp_path):
  done = run_export(tmp_path, "--segmenter=missing", "--output=segmenter.onnx")
  assert done.returncode == 1 and done.stdout == ""
  assert done.stderr.startswith("error: missing is not the workdir of a run")
  done = run_export(tmp_path, "segmenter.onnx", "--output=segmenter.onnx")
  assert done.returncode == 1
  assert done.stderr == "error: unexpected arguments: segmenter.onnx\n"


@pytest.mark.parametrize(
  "output, file_format, message",
  [
    ("segmenter.pb", "onnx", r"--output=segmenter\.pb: expected a file such as segmenter\.onnx"),
    ("segmenter.onnx", "stablehlo", r"expected a file such as segmenter\.stablehlo"),
    ("segmenter.pt", "torch", "--format=torch is not offered; use one of onnx, stablehlo, tflite"),
  ],
)
def test_a_name_that_does_not_fit_the_format_is_refused(output, file_format, message):
  with pytest.raises(ValueError, match=message):
    export.export("pretrained:faces", output, file_format)


def test_the_shipped_segmenter_states_its_licence(tmp_path):
  path = export.export("pretrained:faces", str(tmp_path / "faces.onnx"))
  assert b"Apache-2.0" in path.read_bytes()
  assert Segmenter.restore(path).image_size == 64
