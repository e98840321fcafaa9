r"""Converts a published PyTorch generator, or segmenter, to one file of unseg-jax.

    python -m checkpoints_convert.convert --variant=biggan-deep-256 --output=biggan.safetensors

    python -m checkpoints_convert.convert --format=dcgan --source=weights.tar \
      --output=faces.safetensors

Nothing in the checkpoint is executed. The output appears whole or not at all, and converting the
same checkpoint again gives the same bytes. Samples of the generator, drawn from the output, are
laid out in a picture beside it.
"""

import json
import os
import pathlib
import pickle
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from absl import app, flags
from absl import logging as absl_logging

if not __package__:  # run as a script: Python looks in the script's folder, not in the checkout
  sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)

from checkpoints_convert import (
  biggan,
  biggan_deep,
  contact_sheet,
  dcgan,
  nvidia_reader,
  selfcond,
  state_dict,
  studiogan,
  stylegan2,
  stylegan3,
  torch_reader,
  unet,
)
from checkpoints_convert.variants import Variant
from unseg_jax import generators
from unseg_jax.artifacts import generator_files
from unseg_jax.storage import download, whole_files

# What each --format does: `convert(checkpoint, settings) -> (architecture, config, variables)`;
# `VARIANTS`, the published checkpoints by name; `SIGNATURE`, keys that tell it from the others.
FORMATS: dict[str, ModuleType] = {
  "biggan": biggan,
  "biggan_deep": biggan_deep,
  "dcgan": dcgan,
  "selfcond": selfcond,
  "studiogan": studiogan,
  "stylegan2": stylegan2,
  "stylegan3": stylegan3,
  "unet": unet,  # A segmenter, not a generator.
}
# The number that a pickle by `torch.save` begins with; PyTorch's newer files are zip archives.
_TORCH_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")

# --variant -> the name of its format.
VARIANT_FORMATS = {variant: name for name, module in FORMATS.items() for variant in module.VARIANTS}


def convert_file(
  source: str | os.PathLike | None,
  output: str | os.PathLike,
  format_name: str | None = None,
  variant: str | None = None,
  settings: Mapping[str, Any] | None = None,
  overwrite: bool = False,
) -> generator_files.GeneratorFile:
  """Converts one checkpoint to one generator file.

  Args:
    source: the checkpoint, a file or a URL; None to download the one that `variant` names.
    output: the generator file to write.
    format_name: which project saved the checkpoint, a key of `FORMATS`; None if `variant` tells it.
    variant: which published checkpoint it is, a key of `VARIANT_FORMATS`, or None.
    settings: what the checkpoint's arrays do not tell; they go before those of `variant`.
    overwrite: whether to replace an existing output.

  Returns:
    What was written.

  Raises:
    FileExistsError: the output exists already.
    FileNotFoundError: there is no such checkpoint.
    ImportError: PyTorch is missing, or too old to read untrusted files.
    OSError: the checkpoint cannot be downloaded, or the output cannot be written.
    ValueError: the format or variant is unknown, or they contradict each other; the checkpoint
      cannot be read, or does not hold what the format stores.
  """
  format_name, published = _choose(format_name, variant)
  _check_absent(output, overwrite)
  if source is not None:
    source = os.fspath(source)
  elif published is not None:
    source = published.url
  else:
    raise ValueError("which checkpoint? expected --source=FILE_OR_URL, or --variant=NAME")
  is_url = "://" in source
  if is_url:
    sha256 = published.sha256 if published and source == published.url else None
    path = download.fetch(source, sha256=sha256)
  else:
    path = pathlib.Path(source)
  settings = {**(published.settings if published else {}), **(settings or {})}
  try:
    converted = _convert(path, format_name, settings)
  except ValueError as error:
    where = f"; delete {path} to download it again from {source}" if is_url else ""
    raise ValueError(f"{error}{where}") from error
  generator_file = generator_files.GeneratorFile(*converted, source_sha256=whole_files.sha256(path))
  generator_files.save_generator(output, generator_file)
  return generator_file


def _choose(format_name: str | None, variant: str | None) -> tuple[str, Variant | None]:
  """Returns the format's name and, if a variant was named, what was published under that name."""
  if variant is not None:
    if variant not in VARIANT_FORMATS:
      raise ValueError(
        f"unknown --variant={variant}, expected one of {', '.join(sorted(VARIANT_FORMATS))}"
      )
    expected = VARIANT_FORMATS[variant]
    if format_name not in (None, expected):
      raise ValueError(
        f"--variant={variant} is of the format {expected}, but --format={format_name} was given: "
        "leave --format out"
      )
    return expected, FORMATS[expected].VARIANTS[variant]
  if format_name not in FORMATS:
    raise ValueError(
      f"the format is {format_name}, expected --format with one of {', '.join(FORMATS)}; or the "
      "name of a published checkpoint, --variant=NAME"
    )
  return format_name, None


def _check_absent(path: str | os.PathLike, overwrite: bool) -> None:
  if os.path.exists(path) and not overwrite:
    raise FileExistsError(
      f"{path} exists already: choose another --output, or pass --overwrite to replace it"
    )


def _convert(
  path: pathlib.Path, format_name: str, settings: Mapping[str, Any]
) -> tuple[str, dict, dict]:
  checkpoint = (nvidia_reader if _is_plain_pickle(path) else torch_reader).read(path)
  module = FORMATS[format_name]
  try:
    return module.convert(_unwrap(checkpoint, module.SIGNATURE), settings)
  except ValueError as error:
    message = f"{path} cannot be converted with --format={format_name}: {error}"
    formats = _find_formats(checkpoint)
    if formats and format_name not in formats:
      message += f"; it looks like --format={' or '.join(sorted(formats))}"
    elif isinstance(error, state_dict.Mismatch):
      message += "; choose the format of the project that saved it, or fetch it again"
    raise ValueError(message) from error


def _is_plain_pickle(path: pathlib.Path) -> bool:
  """Whether a file is a pickle, as NVIDIA publishes, that PyTorch did not write."""
  if not path.is_file():
    return False
  with open(path, "rb") as file:
    start = file.read(64)
  return start.startswith(pickle.PROTO) and _TORCH_MAGIC not in start


def _unwrap(checkpoint: Mapping, signature: tuple[str, ...]) -> Mapping:
  """Takes a network out of a training checkpoint, such as PyTorch Lightning's `*.ckpt`.

  Its `state_dict` holds the network with the name of its attribute before every key, such as
  `net.`, perhaps beside other networks.
  """
  arrays = checkpoint.get("state_dict", {})
  prefixes = _find_prefixes(arrays, signature)
  if len(prefixes) > 1:
    raise ValueError(
      f"its state_dict holds several such networks, {', '.join(map(repr, prefixes))}, expected "
      "one: save the `state_dict()` of the one to convert"
    )
  if not prefixes:
    return checkpoint
  (prefix,) = prefixes
  return {key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)}


def _find_prefixes(arrays: Any, signature: tuple[str, ...]) -> list[str]:
  """What stands before the keys of a format in a state dict: '' if nothing, `net.`, or nowhere."""
  keys = {key for key in arrays if isinstance(key, str)} if isinstance(arrays, Mapping) else set()
  prefixes = {key.removesuffix(signature[0]) for key in keys if key.endswith(signature[0])}
  return sorted(
    prefix
    for prefix in prefixes
    if (not prefix or prefix.endswith(".")) and all(prefix + key in keys for key in signature)
  )


def _find_formats(checkpoint: Any) -> set[str]:
  """The formats whose signatures a checkpoint holds, at any depth."""
  if not isinstance(checkpoint, Mapping):
    return set()
  formats = {name for name in FORMATS if _find_prefixes(checkpoint, FORMATS[name].SIGNATURE)}
  return formats.union(*(_find_formats(value) for value in checkpoint.values()))


def read_settings(path: str | os.PathLike) -> dict[str, Any]:
  """Reads the file of `--config`.

  Raises:
    OSError: it cannot be read.
    ValueError: it holds no JSON object.
  """
  try:
    settings = json.loads(pathlib.Path(path).read_text())
  except ValueError as error:
    raise ValueError(f"--config={path} is not JSON ({error}): expected an object") from error
  if not isinstance(settings, dict):
    raise ValueError(f"--config={path} holds a {type(settings).__name__}, expected an object")
  return settings


def _describe(variant: str) -> str:
  note = FORMATS[VARIANT_FORMATS[variant]].VARIANTS[variant].note
  return f"{variant} ({note})" if note else variant


def _define_flags() -> None:
  # Not while importing, so that these names stay free for programs that use convert_file.
  flags.DEFINE_enum("format", None, sorted(FORMATS), "Which project saved the checkpoint.")
  flags.DEFINE_string("source", None, "The checkpoint to convert: a file, or a URL to download.")
  flags.DEFINE_string("output", None, "The generator file to write, *.safetensors.")
  flags.DEFINE_string(
    "variant",
    None,
    "A published checkpoint, in place of --format and its settings, and of --source unless it was "
    f"downloaded before: {', '.join(_describe(variant) for variant in sorted(VARIANT_FORMATS))}.",
  )
  flags.DEFINE_string("config", None, "A JSON file of settings that the checkpoint does not tell.")
  flags.DEFINE_integer("samples", 16, "Pictures on the contact sheet; 0: no sheet.", lower_bound=0)
  flags.DEFINE_bool("overwrite", False, "Replace an existing output.")
  flags.mark_flag_as_required("output")


def main(argv: list[str]) -> None:
  """Runs the command: converts, and says what was written or, in one line, why nothing was."""
  if len(argv) > 1:
    raise app.UsageError(f"expected only flags, got {argv[1:]}: write --source=FILE")
  values = flags.FLAGS
  try:
    if values.samples:
      _check_absent(contact_sheet.sheet_path(values.output), values.overwrite)
    generator_file = convert_file(
      values.source,
      values.output,
      values.format,
      values.variant,
      read_settings(values.config) if values.config else None,
      values.overwrite,
    )
    print(f"wrote {values.output}: {generator_file.architecture} {generator_file.config}")
    if values.samples and generator_file.architecture in generators.ARCHITECTURES:
      print(f"wrote {contact_sheet.draw(values.output, values.samples)}")
  except (ImportError, OSError, ValueError) as error:
    sys.exit(f"error: {error}")


if __name__ == "__main__":
  _define_flags()
  absl_logging.set_verbosity(absl_logging.ERROR)  # The libraries' own chatter stays out of the way.
  app.run(main)
