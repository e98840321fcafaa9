"""Loads generators from files and from the names in a config."""

import importlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np

from unseg_jax.artifacts import generator_files
from unseg_jax.errors import InvalidValue
from unseg_jax.generators import ARCHITECTURES, PRETRAINED
from unseg_jax.generators.base import Generator
from unseg_jax.storage import places, whole_files


def load(path: str | Path, options: Mapping[str, Any] | None = None) -> Generator:
  """Restores a generator from a converted `safetensors` file.

  Args:
    path: the file or its URL, or `pretrained:NAME` for a generator that ships with the package.
    options: settings that replace those in the file, such as BigGAN-deep's `truncation`. The
      `OPTIONS` of the architecture's module lists the supported settings.

  Raises:
    FileNotFoundError: the file does not exist.
    ValueError: the file is not a converted generator, its architecture is unknown, or an option is
      not supported.
  """
  options = dict(options or {})
  path = str(path)
  if path.startswith(PRETRAINED):
    path = str(resources.files("unseg_jax") / "pretrained" / path.removeprefix(PRETRAINED))
    path += ".safetensors"
  path = str(places.local(path))
  file = generator_files.read_generator(path)
  if file.architecture not in ARCHITECTURES:
    raise InvalidValue(
      f"{path}: unknown architecture {file.architecture!r}; this version knows "
      f"{', '.join(sorted(ARCHITECTURES))}. Convert the checkpoint again or update unseg-jax."
    )
  architecture = ARCHITECTURES[file.architecture]
  if unknown := sorted(set(options) - set(architecture.OPTIONS)):
    raise InvalidValue(
      f"config.generator_options.{unknown[0]}: {file.architecture} has no such option; "
      f"it has {', '.join(architecture.OPTIONS) or 'none'}"
    )
  identity = whole_files.sha256(path)
  if options:
    identity += " " + json.dumps(options, sort_keys=True)
  variables = jax.tree.map(np.asarray, file.variables)
  return architecture.build({**file.config, **options}, variables, identity)


def resolve(name: str, options: Mapping[str, Any] | None = None) -> Generator:
  """Returns the generator that a config names.

  Args:
    name: a converted file or its URL, `pretrained:NAME`, or the dotted name
      `package.module:function` of a user's own function, which returns a `Generator`.
    options: see `load`; a user's own function receives them as keyword arguments.

  Raises:
    FileNotFoundError, ValueError: as in `load`, or the dotted name cannot be imported.
  """
  if ":" not in name or name.startswith(PRETRAINED) or places.is_url(name):
    return load(name, options)
  module_name, _, function_name = name.partition(":")
  try:
    module = importlib.import_module(module_name)
    if not hasattr(module, function_name):
      raise ImportError(f"module {module_name!r} has no attribute {function_name!r}")
  except ImportError as error:
    raise InvalidValue(
      f"generator {name!r} cannot be imported ({error}); expected package.module:function, "
      "importable from here (is its folder on PYTHONPATH?)"
    ) from error
  generator = getattr(module, function_name)(**(options or {}))
  if not isinstance(generator, Generator):
    raise InvalidValue(f"{name!r} returned {type(generator).__name__}, expected a Generator")
  return generator
