r"""Writes a segmenter to a file that runs without this package.

    python -m unseg_jax.export --segmenter=runs/NAME --output=segmenter.onnx
    python -m unseg_jax.export --segmenter=runs/NAME --output=segmenter.stablehlo --format=stablehlo
    python -m unseg_jax.export --segmenter=runs/NAME --output=page --format=web

The file maps images `[N, H, W, 3]` uint8 to the probability of foreground `[N, H, W]` float32, with
the normalisation inside, for any H and W from the network's least on (16 with five levels).

    onnx        for onnxruntime and others; its metadata says what it is and how pictures are to be
                resized. `python -m unseg_jax.predict --segmenter=FILE.onnx` runs it, too.
    stablehlo   for `jax.export.deserialize`, on CPUs, CUDA and TPUs. It has no place for metadata:
                they go beside it, to FILE.stablehlo.json.
    tflite      for TensorFlow Lite and LiteRT, on phones: one image of the training's size, square,
                at a time, as TensorFlow's converter takes no open sizes. Metadata as above.
    web         a folder for any file server: a page on which the browser segments pictures, by the
                ONNX file in it. ONNX Runtime Web is fetched once; --runtime=FILE.tgz brings it
                where there is no network.

A file that is there already is replaced, whole or not at all. The exit status is 1 if anything went
wrong, and stderr says what.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging

import unseg_jax
from unseg_jax.generators import PRETRAINED
from unseg_jax.runtime import workdir
from unseg_jax.segmentation import jax_export, onnx_export, onnx_files, web_export
from unseg_jax.segmentation.segmenter import Segmenter

FILE_FORMATS = ("onnx", "stablehlo", "tflite")
FORMATS = (*FILE_FORMATS, "web")


def main(argv: Sequence[str]) -> int:
  """Runs the command that the flags describe; returns its exit status."""
  try:
    if argv[1:]:
      raise ValueError(f"unexpected arguments: {' '.join(argv[1:])}")
    given = flags.FLAGS
    path = export(given.segmenter, given.output, given.format, given.runtime)
  except (ImportError, OSError, ValueError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  files = path.iterdir() if path.is_dir() else [path]
  print(f"wrote {path}: {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")
  return 0


def export(
  segmenter: str, output: str, file_format: str = "onnx", runtime: str | None = None
) -> Path:
  """Writes a segmenter to a file of another format, or to a folder; returns where it went.

  Args:
    segmenter: what `Segmenter.restore` takes, such as the workdir of a run; but no ONNX file.
    output: the file to write; it is named after its format, such as `segmenter.onnx`. For "web"
      the folder: a new one, or one of an earlier export.
    file_format: one of `FORMATS`.
    runtime: for "web", the npm package that `web_export.write_folder` takes; None fetches it.

  Raises:
    FileNotFoundError: there is no segmenter.
    ImportError: what the format needs is not installed.
    ValueError: there is no such format, `output` is not named after it or holds other things, the
      segmenter is an ONNX file, or `runtime` is something else.
    OSError: something cannot be written, or the npm package not be fetched.
  """
  if file_format not in FORMATS:
    raise ValueError(f"--format={file_format} is not offered; use one of {', '.join(FORMATS)}")
  path = Path(os.path.expanduser(output))
  _check(path, file_format, runtime)
  segmenter = os.path.expanduser(segmenter)
  restored = Segmenter.restore(segmenter)
  widths = restored.widths  # Raises for a segmenter that has no weights to export.
  described = describe(segmenter, restored.image_size, file_format)
  if file_format == "web":
    model = onnx_export.onnx_bytes(restored.variables, described)
    web_export.write_folder(path, model, described, runtime)
    return path
  if file_format == "onnx":
    contents = onnx_export.onnx_bytes(restored.variables, described)
  elif file_format == "stablehlo":
    contents = jax_export.stablehlo_bytes(restored.variables, widths)
  else:
    contents = jax_export.tflite_bytes(restored.variables, widths, restored.image_size)
  workdir.write_bytes(path, contents)
  if file_format != "onnx":
    workdir.write_json(path.with_name(f"{path.name}.json"), described)
  return path


def _check(path: Path, file_format: str, runtime: str | None) -> None:
  """Raises a ValueError if a format cannot go to `path`, or has no `runtime`."""
  if file_format == "web":
    return web_export.check_folder(path)
  if runtime is not None:
    raise ValueError(f"--runtime={runtime} is for --format=web alone, not for {file_format}")
  if path.suffix != f".{file_format}" or path.is_dir():
    raise ValueError(f"--output={path}: expected a file such as segmenter.{file_format}")


def describe(segmenter: str, image_size: int, file_format: str) -> dict[str, str]:
  """Returns what an exported file says of itself.

  Args:
    segmenter: what it was exported from. Of a path the last part alone is told.
    image_size: the training's.
    file_format: one of `FORMATS`.
  """
  is_ours = segmenter.startswith(PRETRAINED)
  license_known = {"license": "Apache-2.0; see unseg_jax/pretrained/README.md"} if is_ours else {}
  is_fixed = file_format == "tflite"
  size = f"1, {image_size}, {image_size}" if is_fixed else "N, H, W"
  resizing = (
    f"Crop a picture to a square, or pad it to one, and resize it to {image_size} x {image_size}"
    if is_fixed
    else f"Resize a picture so that its shorter side has {image_size} pixels, the longer one in "
    "proportion, rounded down"
  )
  has_logits = file_format in ("onnx", "web")
  best = ": best the logits, before their sigmoid" if has_logits else ""
  return {
    onnx_files.VERSION_KEY: onnx_files.VERSION,
    onnx_files.IMAGE_SIZE_KEY: str(image_size),
    "description": (
      f"Foreground segmentation: RGB images [{size}, 3] uint8 to the probability of foreground "
      f"[{size}] float32; the normalisation is inside."
    ),
    "resizing": (
      f"{resizing} (bilinear, antialiased, as Pillow's Image.resize). Resize the answer to the "
      f"picture's size (bilinear, half-pixel centres){best}. Foreground is what exceeds a "
      "probability of 0.5."
    ),
    "source": segmenter if is_ours else Path(segmenter).absolute().name,
    "unseg_jax_version": unseg_jax.__version__,
    **license_known,
  }


if __name__ == "__main__":
  # The libraries' own chatter stays out of the way.
  absl_logging.set_verbosity(absl_logging.ERROR)
  # Defined here, as other commands have flags of the same names.
  flags.DEFINE_string(
    "segmenter", "pretrained:faces", "Workdir of a run, a segmenter's file, or pretrained:NAME."
  )
  flags.DEFINE_string(
    "output", None, "The file to write, such as segmenter.onnx; for web a folder.", required=True
  )
  flags.DEFINE_enum("format", "onnx", FORMATS, "What to write.")
  flags.DEFINE_string(
    "runtime", None, "For web: onnxruntime-web as a *.tgz of npm; by default it is fetched."
  )
  app.run(main)
