r"""Converts a published PyTorch generator to one generator file of unseg-jax.

  python checkpoints_convert/convert.py --format=dcgan --source=weights.tar \
    --output=faces.safetensors

Nothing in the checkpoint is executed. The output appears whole or not at all, and converting the
same checkpoint again gives the same bytes.
"""

import os
import pathlib
import sys

from absl import app, flags

if not __package__:  # run as a script: Python looks in the script's folder, not in the checkout
  sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)

from checkpoints_convert import dcgan, torch_reader
from unseg_jax import checkpoints

# What each --format does: `convert(checkpoint, settings) -> (architecture, config, variables)`.
FORMATS = {
  "dcgan": dcgan,
}


def convert_file(
  format_name: str,
  source: str | os.PathLike,
  output: str | os.PathLike,
  overwrite: bool = False,
) -> checkpoints.GeneratorFile:
  """Converts one checkpoint to one generator file.

  Args:
    format_name: which project saved the checkpoint, a key of `FORMATS`.
    source: the checkpoint.
    output: the generator file to write.
    overwrite: whether to replace an existing output.

  Returns:
    What was written.

  Raises:
    FileExistsError: the output exists already.
    FileNotFoundError: there is no such checkpoint.
    ImportError: PyTorch is missing, or too old to read untrusted files.
    ValueError: the checkpoint cannot be read, or does not hold what the format stores.
  """
  if os.path.exists(output) and not overwrite:
    raise FileExistsError(
      f"{output} exists already: choose another --output, or pass --overwrite to replace it"
    )
  checkpoint = torch_reader.read(source)
  try:
    architecture, config, variables = FORMATS[format_name].convert(checkpoint, {})
  except ValueError as error:
    raise ValueError(
      f"{source} is not what --format={format_name} expects ({error}): choose the format of the "
      "project that saved it, or fetch it again"
    ) from error
  generator_file = checkpoints.GeneratorFile(
    architecture, config, variables, source_sha256=checkpoints.sha256(source)
  )
  checkpoints.save_generator(output, generator_file)
  return generator_file


def _define_flags() -> None:
  # Not while importing, so that these names stay free for programs that use convert_file.
  flags.DEFINE_enum("format", None, sorted(FORMATS), "Which project saved the checkpoint.")
  flags.DEFINE_string("source", None, "The checkpoint to convert.")
  flags.DEFINE_string("output", None, "The generator file to write, *.safetensors.")
  flags.DEFINE_bool("overwrite", False, "Replace an existing output.")
  flags.mark_flags_as_required(["format", "source", "output"])


def main(argv: list[str]) -> None:
  """Runs the command: converts, and says what was written or, in one line, why nothing was."""
  if len(argv) > 1:
    raise app.UsageError(f"expected only flags, found {argv[1:]}: write --source=FILE")
  values = flags.FLAGS
  try:
    generator_file = convert_file(values.format, values.source, values.output, values.overwrite)
  except (ImportError, OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  print(f"wrote {values.output}: {generator_file.architecture} {generator_file.config}")


if __name__ == "__main__":
  _define_flags()
  app.run(main)
