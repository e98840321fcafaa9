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
                at a time, as TensorFlow's converter takes no open sizes. Metadata as above. It
                needs TensorFlow: pip install 'unseg-jax[tensorflow]'.
    web         a folder for any file server: a page on which the browser segments pictures, by the
                ONNX file in it. ONNX Runtime Web is fetched once; --runtime=FILE.tgz brings it
                where there is no network.

A file that exists already is replaced, whole or not at all. The exit status is 1 if anything went
wrong, and stderr says what.
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
  commands.run(main)
