r"""Exports a segmenter to a file that runs without this package.

    python -m unseg_jax.export --segmenter=runs/NAME --output=segmenter.onnx
    python -m unseg_jax.export --segmenter=runs/NAME --output=segmenter.stablehlo --format=stablehlo
    python -m unseg_jax.export --segmenter=runs/NAME --output=page --format=web

The exported function maps images `[N, H, W, 3]` uint8 to the probability of foreground `[N, H, W]`
float32. It includes the normalisation. H and W may be any size of at least 2 ** (levels - 1): 16
for a U-Net with five levels.

    onnx        for onnxruntime and others. The metadata describes the model and how to resize
                pictures. `python -m unseg_jax.predict --segmenter=FILE.onnx` runs it, too.
    stablehlo   for `jax.export.deserialize`, on CPUs, CUDA and TPUs. The format has no metadata;
                they are written to FILE.stablehlo.json.
    tflite      for TensorFlow Lite and LiteRT, on phones. It takes one square image of the
                training size at a time, since TensorFlow's converter needs fixed sizes. The
                metadata are written to FILE.tflite.json. It needs TensorFlow:
                pip install 'unseg-jax[tensorflow]'.
    web         a static page for any file server, which segments pictures in the browser with the
                ONNX file beside it. ONNX Runtime Web is downloaded once; without a network, pass
                it as --runtime=FILE.tgz.

An existing file is replaced atomically. If anything goes wrong, the exit status is 1 and stderr
names the reason.
"""

import sys
from collections.abc import Sequence

from absl import flags
from absl import logging as absl_logging

from unseg_jax.export.files import FORMATS, export
from unseg_jax.runtime import commands, parallel


def main(argv: Sequence[str]) -> int:
  """Runs the command that the flags describe; returns its exit status."""
  try:
    commands.check_no_arguments(argv)
    parallel.check_devices()
    parallel.keep_compiled()
    given = flags.FLAGS
    path = export(given.segmenter, given.output, given.format, given.runtime)
  except Exception as error:
    print(commands.explain(error), file=sys.stderr)
    return 1
  files = path.iterdir() if path.is_dir() else [path]
  print(f"wrote {path}: {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")
  return 0


if __name__ == "__main__":
  # Hide log messages of libraries.
  absl_logging.set_verbosity(absl_logging.ERROR)
  # Defined here, since other commands have flags of the same names.
  flags.DEFINE_string(
    "segmenter", "pretrained:faces", "Workdir of a run, segmenter file or pretrained:NAME."
  )
  flags.DEFINE_string(
    "output",
    None,
    "File to write, such as segmenter.onnx, or folder for --format=web (required).",
    required=True,
  )
  flags.DEFINE_enum("format", "onnx", FORMATS, "Format of the output.")
  flags.DEFINE_string(
    "runtime",
    None,
    "npm archive (*.tgz) of onnxruntime-web, for --format=web. Default: a download.",
  )
  commands.run(main)
