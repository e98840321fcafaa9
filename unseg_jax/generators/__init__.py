"""What is given: pretrained generators, one module for each architecture, and their registry.

In: a generator file (`checkpoints_convert/` makes it), or a user's own function. Out: a
`Generator`, the same small object for every architecture. Open `base.py` first, then `dcgan.py`,
the shortest of them.
"""

import importlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from unseg_jax.generators import biggan, biggan_deep, dcgan, selfcond, stylegan2
from unseg_jax.generators.base import (
  DTYPES,
  Generator,
  check_dtype,
  normal_latents,
  sample_at,
  with_dtype,
)
from unseg_jax.runtime import checkpoints, places

__all__ = [
  "ARCHITECTURES",
  "DTYPES",
  "Generator",
  "check_dtype",
  "load",
  "normal_latents",
  "resolve",
  "sample_at",
  "with_dtype",
]

PRETRAINED = "pretrained:"


# Architecture -> the module that builds it: `build(config, variables, identity) -> Generator`, and
# `OPTIONS`, the entries of its config that may be chosen anew whenever it is loaded.
ARCHITECTURES: dict[str, ModuleType] = {
  "biggan": biggan,
  "biggan_deep": biggan_deep,
  "dcgan": dcgan,
  "selfcond": selfcond,
  "stylegan2": stylegan2,
}


def load(path: str | Path, options: Mapping[str, Any] | None = None) -> Generator:
  """Restores a generator from a converted `safetensors` file.

  Args:
    path: the file or its URL, or `pretrained:NAME` for one that ships with the package.
    options: settings that replace those in the file, such as BigGAN-deep's `truncation`; the
      architecture's module lists in `OPTIONS` which it allows.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is not a converted generator, of an unknown architecture, or without such an
      option.
  """
  options = dict(options or {})
  path = str(path)
  if path.startswith(PRETRAINED):
    path = str(resources.files("unseg_jax") / "pretrained" / path.removeprefix(PRETRAINED))
    path += ".safetensors"
  path = str(places.local(path))
  file = checkpoints.read_generator(path)
  if file.architecture not in ARCHITECTURES:
    raise ValueError(
      f"{path}: unknown architecture {file.architecture!r}; this version knows "
      f"{', '.join(sorted(ARCHITECTURES))}. Convert the checkpoint again or update unseg-jax."
    )
  architecture = ARCHITECTURES[file.architecture]
  if unknown := sorted(set(options) - set(architecture.OPTIONS)):
    raise ValueError(
      f"config.generator_options.{unknown[0]}: {file.architecture} has no such option; "
      f"it has {', '.join(architecture.OPTIONS) or 'none'}"
    )
  identity = checkpoints.sha256(path)
  if options:
    identity += " " + json.dumps(options, sort_keys=True)
  variables = jax.tree.map(np.asarray, file.variables)
  return architecture.build({**file.config, **options}, variables, identity)


def resolve(name: str, options: Mapping[str, Any] | None = None) -> Generator:
  """Returns the generator that a config names.

  Args:
    name: a converted file or its URL, `pretrained:NAME`, or the dotted name
      `package.module:function` of a user's own function, which returns a `Generator`.
    options: see `load`; a user's own function gets them as keyword arguments.

  Raises:
    FileNotFoundError, ValueError: as `load`; or the dotted name leads nowhere.
  """
  if ":" not in name or name.startswith(PRETRAINED) or places.is_url(name):
    return load(name, options)
  module_name, _, function_name = name.partition(":")
  try:
    function = getattr(importlib.import_module(module_name), function_name)
  except (ImportError, AttributeError) as error:
    raise ValueError(
      f"generator {name!r} cannot be imported ({error}); expected package.module:function, "
      "importable from here (is its folder on PYTHONPATH?)"
    ) from error
  generator = function(**(options or {}))
  if not isinstance(generator, Generator):
    raise ValueError(f"{name!r} returned {type(generator).__name__}, expected a Generator")
  return generator
