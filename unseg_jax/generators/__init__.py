"""The registry of generators: one builder for each architecture."""

import importlib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import numpy as np

from unseg_jax import checkpoints
from unseg_jax.generators.base import Generator, normal_latents, sample_at
from unseg_jax.generators.dcgan import Dcgan

__all__ = ["ARCHITECTURES", "Generator", "load", "normal_latents", "resolve", "sample_at"]

PRETRAINED = "pretrained:"


def _dcgan(config: dict[str, Any], variables: dict[str, Any], identity: str) -> Generator:
  module = Dcgan(widths=tuple(config["widths"]), channels=config["channels"])
  return Generator(
    variables=variables,
    image_size=4 * 2 ** len(config["widths"]),
    latent_shape=(config["latent_size"],),
    num_classes=None,
    sample_latents=normal_latents((config["latent_size"],)),
    generate=lambda variables, latents, labels: module.apply(variables, latents),
    identity=identity,
  )


Builder = Callable[[dict[str, Any], dict[str, Any], str], Generator]
# Architecture -> builder of (the file's config, its variables, its identity).
ARCHITECTURES: dict[str, Builder] = {"dcgan": _dcgan}


def load(path: str | Path) -> Generator:
  """Restores a generator from a converted `safetensors` file.

  Args:
    path: the file, or `pretrained:NAME` for one that ships with the package.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is not a converted generator, or of an unknown architecture.
  """
  path = str(path)
  if path.startswith(PRETRAINED):
    path = str(resources.files("unseg_jax") / "pretrained" / path.removeprefix(PRETRAINED))
    path += ".safetensors"
  file = checkpoints.read_generator(path)
  if file.architecture not in ARCHITECTURES:
    raise ValueError(
      f"{path}: unknown architecture {file.architecture!r}; this version knows "
      f"{', '.join(sorted(ARCHITECTURES))}. Convert the checkpoint again or update unseg-jax."
    )
  variables = jax.tree.map(np.asarray, file.variables)
  return ARCHITECTURES[file.architecture](file.config, variables, checkpoints.sha256(path))


def resolve(name: str) -> Generator:
  """Returns the generator that a config names.

  Args:
    name: a converted file, `pretrained:NAME`, or the dotted name `package.module:function` of a
      user's own function, which takes no arguments and returns a `Generator`.

  Raises:
    FileNotFoundError, ValueError: as `load`; or the dotted name leads nowhere.
  """
  if ":" not in name or name.startswith(PRETRAINED):
    return load(name)
  module_name, _, function_name = name.partition(":")
  try:
    function = getattr(importlib.import_module(module_name), function_name)
  except (ImportError, AttributeError) as error:
    raise ValueError(
      f"generator {name!r} cannot be imported ({error}); expected package.module:function, "
      "importable from here (is its folder on PYTHONPATH?)"
    ) from error
  generator = function()
  if not isinstance(generator, Generator):
    raise ValueError(f"{name!r} returned {type(generator).__name__}, expected a Generator")
  return generator
