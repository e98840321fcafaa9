"""Pretrained generators: one module per architecture, and their registry.

The input is a generator file (from `checkpoints_convert/`) or a user's own function. The output is
a `Generator`, the same small object for every architecture. Start with `base.py`, then `dcgan.py`,
the shortest architecture.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from unseg_jax.generators import biggan, biggan_deep, cips, dcgan, selfcond, stylegan2, stylegan3
from unseg_jax.generators.base import (
  DTYPES,
  Generator,
  check_dtype,
  normal_latents,
  sample_at,
  with_dtype,
)

if TYPE_CHECKING:
  from unseg_jax.generators.files import load, resolve

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


# Maps each architecture to the module that builds it. A module has `build(config, variables,
# identity) -> Generator`, and `OPTIONS`, the config entries that can be overridden at load time.
ARCHITECTURES: dict[str, ModuleType] = {
  "biggan": biggan,
  "biggan_deep": biggan_deep,
  "cips": cips,
  "dcgan": dcgan,
  "selfcond": selfcond,
  "stylegan2": stylegan2,
  "stylegan3": stylegan3,
}


def __getattr__(name: str) -> Any:
  """Imports `load` and `resolve` on first use, so that pure computation imports no file code."""
  if name not in ("load", "resolve"):
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module("unseg_jax.generators.files"), name)
