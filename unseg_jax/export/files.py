"""Exports a segmenter to a file of another format, or to a web page."""

from pathlib import Path

import unseg_jax
from unseg_jax.errors import InvalidValue
from unseg_jax.export import to_jax, to_onnx, to_web
from unseg_jax.generators import PRETRAINED
from unseg_jax.inference import onnx_files
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.storage import places, whole_files

FILE_FORMATS = ("onnx", "stablehlo", "tflite")
FORMATS = (*FILE_FORMATS, "web")


def export(
  segmenter: str, output: str, file_format: str = "onnx", runtime: str | None = None
) -> Path:
  """Exports a segmenter to a file of another format, or to a folder; returns its path.

  Args:
    segmenter: a segmenter that `Segmenter.restore` takes, such as the workdir of a run, except an
      ONNX file.
    output: the file to write, with the format as its suffix, such as `segmenter.onnx`. For "web", a
      new folder or one of an earlier export.
    file_format: one of `FORMATS`.
    runtime: for "web", the npm package that `to_web.write_folder` takes; None downloads it.

  Raises:
    FileNotFoundError: the segmenter does not exist.
    ImportError: the format needs a package that is not installed.
    ValueError: the format is unknown, `output` has another suffix or contains other files, the
      segmenter is an ONNX file, or `runtime` is another file.
    OSError: a file cannot be written, or the npm package cannot be downloaded.
  """
  if file_format not in FORMATS:
    raise InvalidValue(f"--format={file_format} is not offered; use one of {', '.join(FORMATS)}")
  path = places.path(output)
  _check(path, file_format, runtime)
  restored = Segmenter.restore(segmenter)
  features = restored.features  # Raises an error for an ONNX file.
  described = describe(segmenter, restored.image_size, file_format)
  if file_format == "web":
    model = to_onnx.onnx_bytes(restored.variables, described)
    to_web.write_folder(path, model, described, runtime)
    return path
  if file_format == "onnx":
    contents = to_onnx.onnx_bytes(restored.variables, described)
  elif file_format == "stablehlo":
    contents = to_jax.stablehlo_bytes(restored.variables, features)
  else:
    contents = to_jax.tflite_bytes(restored.variables, features, restored.image_size)
  whole_files.write_bytes(path, contents)
  if file_format != "onnx":
    whole_files.write_json(path.with_name(f"{path.name}.json"), described)
  return path


def _check(path: Path, file_format: str, runtime: str | None) -> None:
  """Raises a ValueError if `path` or `runtime` does not fit the format."""
  if file_format == "web":
    return to_web.check_folder(path)
  if runtime is not None:
    raise InvalidValue(f"--runtime={runtime} is for --format=web only, not for {file_format}")
  if path.suffix != f".{file_format}" or path.is_dir():
    raise InvalidValue(f"--output={path}: expected a file such as segmenter.{file_format}")


def describe(segmenter: str, image_size: int, file_format: str) -> dict[str, str]:
  """Returns the metadata of an exported file.

  Args:
    segmenter: the exported segmenter. The metadata contain only the last part of its path.
    image_size: the image size in training.
    file_format: one of `FORMATS`.
  """
  is_ours = segmenter.startswith(PRETRAINED)
  license_known = {"license": "Apache-2.0; see unseg_jax/pretrained/README.md"} if is_ours else {}
  is_fixed = file_format == "tflite"
  size = f"1, {image_size}, {image_size}" if is_fixed else "N, H, W"
  resizing = (
    f"Crop or pad a picture to a square, and resize it to {image_size} x {image_size}"
    if is_fixed
    else f"Resize a picture so that its shorter side has {image_size} pixels and the longer one is "
    "in proportion, rounded down"
  )
  has_logits = file_format in ("onnx", "web")
  best = ", preferably as logits, before their sigmoid" if has_logits else ""
  return {
    onnx_files.VERSION_KEY: onnx_files.VERSION,
    onnx_files.IMAGE_SIZE_KEY: str(image_size),
    "description": (
      f"Foreground segmentation: RGB images [{size}, 3] uint8 to the probability of foreground "
      f"[{size}] float32; the normalisation is included."
    ),
    "resizing": (
      f"{resizing} (bilinear, antialiased, as Pillow's Image.resize). Resize the output to the "
      f"picture's size (bilinear, half-pixel centres){best}. A pixel is foreground if its "
      "probability exceeds 0.5."
    ),
    "source": segmenter if is_ours else places.path(segmenter).absolute().name,
    "unseg_jax_version": unseg_jax.__version__,
    **license_known,
  }
