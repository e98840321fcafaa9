r"""Converts a published PyTorch generator, or segmenter, to one file of unseg-jax.

    python -m checkpoints_convert.convert --variant=biggan-deep-256 --output=biggan.safetensors

    python -m checkpoints_convert.convert --format=dcgan --source=weights.tar \
      --output=faces.safetensors

The converter executes nothing in the checkpoint. It writes the output atomically, and the same
checkpoint always gives the same bytes. It also writes a contact sheet of samples, drawn from the
output, beside it.
"""

import json
import os
import pathlib
import pickle
import re
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import yaml
from absl import flags
from absl import logging as absl_logging

if not __package__:  # Run as a script, so sys.path[0] is the script's folder, not the checkout.
  sys.path[0] = str(pathlib.Path(__file__).resolve().parent.parent)

from checkpoints_convert import (
  biggan,
  biggan_deep,
  cips,
  contact_sheet,
  dcgan,
  nvidia_reader,
  rosinality,
  selfcond,
  state_dict,
  studiogan,
  stylegan2,
  stylegan3,
  torch_reader,
  unet,
  unwrapping,
)
from checkpoints_convert.variants import Variant
from unseg_jax import generators
from unseg_jax.artifacts import generator_files
from unseg_jax.errors import InvalidValue
from unseg_jax.runtime import commands, parallel
from unseg_jax.storage import download, places, whole_files

# The module of each --format. A module has `convert(checkpoint, settings) -> (architecture, config,
# variables)`; `VARIANTS`, the published checkpoints by name; `SIGNATURE`, keys that identify the
# format; `PREFERRED_ENTRY`, the entry of upstream's dict that holds the network to convert, or
# None; and optionally `BESIDE`, entries of the enclosing dict that belong to the network.
FORMATS: dict[str, ModuleType] = {
  "biggan": biggan,
  "biggan_deep": biggan_deep,
  "cips": cips,
  "dcgan": dcgan,
  "rosinality": rosinality,
  "selfcond": selfcond,
  "studiogan": studiogan,
  "stylegan2": stylegan2,
  "stylegan3": stylegan3,
  "unet": unet,  # A segmenter, not a generator.
}
# The first number in a pickle from `torch.save`. PyTorch's newer files are zip archives.
_TORCH_MAGIC = (0x1950A86A20F9469CFC6C).to_bytes(10, "little")

# Maps each --variant to the name of its format.
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
    source: the checkpoint, as a file or a URL; None downloads the checkpoint of `variant`.
    output: the generator file to write.
    format_name: the project that saved the checkpoint, a key of `FORMATS`; None infers it from
      `variant` or from the checkpoint's keys.
    variant: the name of a published checkpoint, a key of `VARIANT_FORMATS`, or None.
    settings: settings that the checkpoint's arrays do not determine; they override those of
      `variant`.
    overwrite: whether to replace an existing output.

  Returns:
    The content of the generator file.

  Raises:
    FileExistsError: the output already exists.
    FileNotFoundError: the checkpoint does not exist.
    ImportError: PyTorch is missing, or too old to read untrusted files.
    OSError: the checkpoint cannot be downloaded, or the output cannot be written.
    ValueError: the format or variant is unknown, or they contradict each other; or the checkpoint
      is unreadable or differs from the format.
  """
  format_name, published = _choose(source, format_name, variant)
  _check_absent(output, overwrite)
  if source is not None:
    source = os.fspath(source)
  elif published is not None:
    source = published.url
  else:
    raise InvalidValue("no checkpoint is given: expected --source=FILE_OR_URL, or --variant=NAME")
  is_url = "://" in source
  if is_url:
    sha256 = published.sha256 if published and source == published.url else None
    path = download.fetch(source, sha256=sha256)
  else:
    path = places.path(source)
  settings = {**(published.settings if published else {}), **(settings or {})}
  try:
    converted = _convert(path, format_name, settings)
  except ValueError as error:
    where = f"; delete {path} to download it again from {source}" if is_url else ""
    raise InvalidValue(f"{error}{where}") from error
  generator_file = generator_files.GeneratorFile(*converted, source_sha256=whole_files.sha256(path))
  generator_files.save_generator(output, generator_file)
  return generator_file


def _choose(
  source: str | os.PathLike | None, format_name: str | None, variant: str | None
) -> tuple[str | None, Variant | None]:
  """Returns the selected format and the published checkpoint of a variant."""
  if variant is not None:
    if variant not in VARIANT_FORMATS:
      raise InvalidValue(
        f"unknown --variant={variant}, expected one of {', '.join(sorted(VARIANT_FORMATS))}"
      )
    expected = VARIANT_FORMATS[variant]
    if format_name not in (None, expected):
      raise InvalidValue(
        f"--variant={variant} is of the format {expected}, but --format={format_name} was given: "
        "omit --format"
      )
    return expected, FORMATS[expected].VARIANTS[variant]
  if format_name is None and source is not None:
    return None, None
  if format_name not in FORMATS:
    raise InvalidValue(
      f"the format is {format_name}, expected --format with one of {', '.join(FORMATS)}; or the "
      "name of a published checkpoint, --variant=NAME"
    )
  return format_name, None


def _check_absent(path: str | os.PathLike, overwrite: bool) -> None:
  if places.path(path).exists() and not overwrite:
    raise FileExistsError(
      f"{path} exists already: choose another --output, or pass --overwrite to replace it"
    )


def _convert(
  path: pathlib.Path, format_name: str | None, settings: Mapping[str, Any]
) -> tuple[str, dict, dict]:
  is_nvidia = _is_plain_pickle(path)
  checkpoint = (nvidia_reader if is_nvidia else torch_reader).read(path)
  formats = [name for name in FORMATS if unwrapping.holds(checkpoint, FORMATS[name].SIGNATURE)]
  if format_name is None:
    if len(formats) != 1:
      found = f"holds networks of {' and '.join(formats)}" if formats else "has an unknown format"
      raise InvalidValue(f"{path} {found}: expected --format with one of {', '.join(FORMATS)}")
    (format_name,) = formats
  module = FORMATS[format_name]
  try:
    if is_nvidia:  # nvidia_reader has already unwrapped the network and added its attributes.
      return module.convert(checkpoint, settings)
    return unwrapping.convert(
      checkpoint,
      module.SIGNATURE,
      lambda arrays: module.convert(arrays, settings),
      module.PREFERRED_ENTRY,
      getattr(module, "BESIDE", ()),
    )
  except ValueError as error:
    message = f"{path} cannot be converted with --format={format_name}: {error}"
    if formats and format_name not in formats:
      message += f"; it looks like --format={' or '.join(sorted(formats))}"
    elif isinstance(error, state_dict.Mismatch):
      message += "; choose the format of the project that saved it, or fetch it again"
    raise InvalidValue(message) from error


def _is_plain_pickle(path: pathlib.Path) -> bool:
  """Whether a file is a pickle as NVIDIA publishes, not one that PyTorch wrote."""
  if not path.is_file():
    return False
  with open(path, "rb") as file:
    start = file.read(64)
  return start.startswith(pickle.PROTO) and _TORCH_MAGIC not in start


def read_settings(path: str | os.PathLike) -> dict[str, Any]:
  """Reads the file of `--config`: JSON, or YAML unless its name ends with `.json`.

  Raises:
    OSError: the file cannot be read.
    ValueError: the file holds neither a JSON object nor a YAML mapping.
  """
  content = places.path(path).read_bytes()
  try:
    settings = json.loads(content)
  except ValueError as error:
    if os.fspath(path).endswith(".json"):
      raise InvalidValue(f"--config={path} is not JSON ({error}): expected an object") from error
    settings = _parse_yaml(content, path)
  if not isinstance(settings, dict):
    raise InvalidValue(f"--config={path} holds a {type(settings).__name__}, expected an object")
  return settings


def _parse_yaml(content: bytes, path: str | os.PathLike) -> Any:
  class Loader(yaml.SafeLoader):
    """Reads 1e-5 as a number, as in JSON and YAML 1.2; YAML 1.1 reads it as a string."""

  exponent = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
  Loader.add_implicit_resolver("tag:yaml.org,2002:float", exponent, list("-+0123456789"))
  try:
    return yaml.load(content, Loader)
  except (RecursionError, ValueError, yaml.YAMLError) as error:
    reason = " ".join(str(error).split())
    raise InvalidValue(
      f"--config={path} is neither JSON nor YAML ({reason}): expected names and values"
    ) from error


def _describe(variant: str) -> str:
  note = FORMATS[VARIANT_FORMATS[variant]].VARIANTS[variant].note
  return f"{variant} ({note})" if note else variant


def _count_channels(generator_file: generator_files.GeneratorFile) -> int:
  name = "channels" if generator_file.architecture == "dcgan" else "image_channels"
  return generator_file.config.get(name, 3)


def _define_flags() -> None:
  # Not at import, so that these flag names stay free for programs that use convert_file.
  flags.DEFINE_enum(
    "format", None, sorted(FORMATS), "Format of the checkpoint. Default: detected from its keys."
  )
  flags.DEFINE_string("source", None, "Checkpoint to convert: a file, or a URL to download.")
  flags.DEFINE_string("output", None, "File to write, *.safetensors (required).")
  flags.DEFINE_string(
    "variant",
    None,
    "Published checkpoint to convert, instead of --format and its settings. It is downloaded "
    "unless --source names a copy. One of: "
    f"{', '.join(_describe(variant) for variant in sorted(VARIANT_FORMATS))}.",
  )
  flags.DEFINE_string(
    "config", None, "JSON or YAML file with settings that the checkpoint does not hold."
  )
  flags.DEFINE_integer(
    "samples", 16, "Number of samples on the contact sheet. 0: no sheet.", lower_bound=0
  )
  flags.DEFINE_bool("overwrite", False, "Replace an existing output file.")
  flags.mark_flag_as_required("output")


def main(argv: list[str]) -> None:
  """Runs the command: converts, then prints the written files or a one-line error."""
  commands.check_no_arguments(argv, ": expected only flags, as in --source=FILE")
  values = flags.FLAGS
  try:
    parallel.check_devices()
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
    if note := state_dict.PICTURES[_count_channels(generator_file)]:
      print(note)
    if values.samples and generator_file.architecture in generators.ARCHITECTURES:
      print(f"wrote {contact_sheet.draw(values.output, values.samples)}")
  except Exception as error:
    sys.exit(commands.explain(error))


if __name__ == "__main__":
  _define_flags()
  absl_logging.set_verbosity(absl_logging.ERROR)  # Hides log messages of libraries.
  commands.run(main)
