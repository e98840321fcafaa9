"""Pretrained generators: one module for each architecture, and their registry.

In: a generator file (`checkpoints_convert/` makes it), or a user's own function. Out: a
`Generator`, the same small object for every architecture. Open `base.py` first, then `dcgan.py`,
the shortest of them.
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


# Architecture -> the module that builds it: `build(config, variables, identity) -> Generator`, and
# `OPTIONS`, the entries of its config that may be chosen anew whenever it is loaded.
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
  """Imports `load` and `resolve` at their first use: code that only computes reads no files."""
  if name not in ("load", "resolve"):
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module("unseg_jax.generators.files"), name)
