"""Configs on the command line: `--config=FILE[:VARIANT]` and `--config.SETTING=VALUE`.

A `.json` file is the `config.json` of a run's workdir.

An error is reported in one line, which for a Python file includes the line number.
"""

import difflib
import importlib.machinery
import importlib.util
import inspect
import json
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from unseg_jax.errors import InvalidValue
from unseg_jax.runtime import commands
from unseg_jax.storage import places

_ALL_SETTINGS = "unseg_jax/default_config.py lists all settings."
_LIBRARY = str(Path(ml_collections.__file__).parent)
# ml_collections' message for a value of another type.
_OTHER_TYPE = re.compile(r"field '(\w+)' .* cannot be casted to type <class '(\w+)'>", re.DOTALL)
# ml_collections' message for a name that a section lacks. It lists all names, and may suggest one.
_NO_SUCH_SETTING = re.compile(r'Key "(\w+)" does not exist(?:.*(Did you mean "\w+"))?')
# Type of a setting -> parser of its value on the command line, and what the parser expects.
_EXPECTED: dict[type, tuple[flags.ArgumentParser, str]] = {
  bool: (flags.BooleanParser(), "true or false"),
  int: (flags.IntegerParser(), "a whole number"),
  float: (flags.FloatParser(), "a number"),
}


def find(path: str) -> str:
  """Returns the path of a config; finds the package's `configs/NAME.py` outside a checkout.

  Args:
    path: the value of `--config`, with an optional variant after a colon.
  """
  name, colon, variant = os.path.expanduser(path).partition(":")
  package = importlib.util.find_spec("unseg_jax.configs")
  if Path(name).exists() or Path(name).parent != Path("configs"):
    return name + colon + variant
  if package is None or package.origin is None:
    return name + colon + variant
  return str(Path(package.origin).with_name(Path(name).name)) + colon + variant


class Parser(config_flags.config_flags.ConfigFileFlagParser):
  """Reads the config that `--config` names."""

  def parse(self, path: str) -> ml_collections.ConfigDict:
    """Returns the config, locked against new settings.

    Raises:
      commands.NotParsed: with an error of `load`, `read_recorded` or `check_overrides` as its
        cause.
    """
    try:
      config = read_recorded(path) if path.endswith(".json") else load(find(path))
      check_overrides(config, sys.argv[1:])
    except Exception as error:
      raise commands.NotParsed from error
    return config.lock()


def load(path: str) -> ml_collections.ConfigDict:
  """Loads a config file and calls its `get_config`.

  Args:
    path: the file's path, with an optional variant for `get_config` after a colon.

  Raises:
    FileNotFoundError: the file does not exist.
    ValueError: the file has no `get_config`, or a variant is missing or not expected; or it sets an
      unknown setting or a value of another type.
  """
  name, colon, variant = path.partition(":")
  if not Path(name).is_file():
    raise FileNotFoundError(
      f"--config={path}: no such file; expected a config, such as {_closest_file(name)}"
    )
  # Registered, since dataclasses look up their module.
  loader = importlib.machinery.SourceFileLoader("config_config", name)
  module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))  # type: ignore[arg-type]
  sys.modules[loader.name] = module
  try:
    loader.exec_module(module)
    if not hasattr(module, "get_config"):
      raise InvalidValue(f"--config={path}: expected a file that defines get_config()")
    _check_variant(path, inspect.signature(module.get_config), variant if colon else None)
    config = module.get_config(*([variant] if colon else []))
  except (AttributeError, KeyError, TypeError) as error:
    raise InvalidValue(_describe(error)) if _is_refusal(error) else error from None
  if not isinstance(config, ml_collections.ConfigDict):
    raise InvalidValue(
      f"--config={path}: its get_config() returned {config!r}, expected a ConfigDict such as "
      "default_config.get_config() returns"
    )
  return config


def read_recorded(path: str) -> ml_collections.ConfigDict:
  """Reads the `config.json` of a workdir, to repeat its run.

  Args:
    path: the file's path or URL.

  Raises:
    ValueError: the file is missing or damaged.
  """
  try:
    recorded = json.loads(places.local(path).read_text(), object_hook=_with_tuples)
  except (OSError, ValueError) as error:
    raise InvalidValue(
      f"--config={path} cannot be read ({error}); expected the config.json of a workdir"
    ) from error
  return ml_collections.ConfigDict(recorded)


def _with_tuples(settings: dict[str, Any]) -> dict[str, Any]:
  def convert(value: Any) -> Any:
    return tuple(map(convert, value)) if isinstance(value, list) else value

  return {name: convert(value) for name, value in settings.items()}


def _closest_file(name: str) -> str:
  """Returns the path of the config with the most similar name."""
  folders = [Path(name).parent, Path(find("configs/dcgan_faces.py")).parent]
  files = [path for folder in folders for path in sorted(folder.glob("*.py"))]
  found = difflib.get_close_matches(Path(name).stem, [path.stem for path in files], 1)
  return str(next((path for path in files if path.stem in found), "configs/dcgan_faces.py"))


def _check_variant(path: str, signature: inspect.Signature, variant: str | None) -> None:
  parameters = signature.parameters.values()
  name = path.partition(":")[0]
  if variant is not None and not parameters:
    raise InvalidValue(f"--config={path}: this config has no variants; write --config={name}")
  if variant is None and any(each.default is each.empty for each in parameters):
    raise InvalidValue(f"--config={path}: expected a variant, as in --config={name}:VARIANT")


def _is_refusal(error: Exception) -> bool:
  """Whether ml_collections raised the error, to refuse a setting or its value."""
  return traceback.extract_tb(error.__traceback__)[-1].filename.startswith(_LIBRARY)


def _describe(error: Exception) -> str:
  frames = traceback.extract_tb(error.__traceback__)
  frame = next(each for each in reversed(frames) if not each.filename.startswith(_LIBRARY))
  reason = " ".join(str(error.args[0]).split())
  if found := _OTHER_TYPE.search(reason):
    reason = f"{found[1]} is of another type, expected {_form(found[2])}"
  elif found := _NO_SUCH_SETTING.search(reason):
    reason = f"{found[1]} is not a setting. " + (f"{found[2]}?" if found[2] else _ALL_SETTINGS)
  return f"{frame.filename}, line {frame.lineno}: {frame.line}: {reason}"


def _form(type_name: str) -> str:
  """Describes the expected values of a setting of this type, for messages."""
  if type_name == "tuple":
    return "a tuple, which needs a comma even with one element: (VALUE,)"
  return {kind.__name__: text for kind, (_, text) in _EXPECTED.items()}.get(
    type_name, f"a value of type {type_name}"
  )


def check_overrides(config: ml_collections.ConfigDict, arguments: Sequence[str]) -> None:
  """Checks the settings on a command line.

  Args:
    config: the config before they are applied.
    arguments: the command line, including other flags.

  Raises:
    ValueError: a setting is unknown, or its value has another type.
  """
  for argument, name, text in _overrides(arguments):
    value = _look_up(config, argument, name)
    parser, expected = _EXPECTED.get(type(value), (None, ""))
    if parser is None or text is None:
      continue
    try:
      parser.parse(text)
    except (TypeError, ValueError):
      raise InvalidValue(f"{argument}: expected {expected}, such as {value}") from None


def _overrides(arguments: Sequence[str]) -> Iterator[tuple[str, str, str | None]]:
  """Yields each argument for a setting, with the setting's name and its value, if given by `=`."""
  for argument in arguments:
    if argument == "--":
      return
    # ml_collections handles subscripts.
    if found := re.fullmatch(r"--?(?:no)?config\.([\w.]+)(?:=(.*))?", argument, re.DOTALL):
      yield argument, found[1], found[2]


def _look_up(config: ml_collections.ConfigDict, argument: str, dotted: str) -> Any:
  value: Any = config
  section = "config"
  for name in dotted.split("."):
    if not isinstance(value, ml_collections.ConfigDict):
      raise InvalidValue(f"{argument}: {section} is a value, {value!r}, and has no settings")
    if name not in value:
      close = difflib.get_close_matches(name, value.keys(), 1)
      known = f"It has {', '.join(sorted(value.keys()))}."
      if not value:
        known = "Define it in the config file first."
      hint = f'Did you mean "{close[0]}"?' if close else known
      raise InvalidValue(f"{argument}: {section} has no setting {name}. {hint}")
    value, section = value[name], f"{section}.{name}"
  return value
