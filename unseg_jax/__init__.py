"""Unsupervised foreground segmentation from pretrained image generators, in JAX and Flax.

A reimplementation of "Finding an Unsupervised Image Segmenter in Each of Your Deep Generative
Models" (Melas-Kyriazi, Rupprecht, Laina, Vedaldi, ICLR 2022, arXiv 2105.08127).

The names in `__all__` are what most programs need; each is imported when it is first used, so that
`import unseg_jax` alone takes no time. Everything else is in the modules, by the same rules.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from unseg_jax.default_config import get_config
  from unseg_jax.generators import Generator, normal_latents, sample_at
  from unseg_jax.generators import load as load_generator
  from unseg_jax.generators import resolve as resolve_generator
  from unseg_jax.inference.segmenter import Segmenter
  from unseg_jax.pipeline import run

__version__ = "0.1.0"
__all__ = [
  "Generator",
  "Segmenter",
  "__version__",
  "get_config",
  "load_generator",
  "normal_latents",
  "resolve_generator",
  "run",
  "sample_at",
]

# Public name -> the module that has it, and its name there.
_SOURCES = {
  "Generator": ("unseg_jax.generators", "Generator"),
  "Segmenter": ("unseg_jax.inference.segmenter", "Segmenter"),
  "get_config": ("unseg_jax.default_config", "get_config"),
  "load_generator": ("unseg_jax.generators", "load"),
  "normal_latents": ("unseg_jax.generators", "normal_latents"),
  "resolve_generator": ("unseg_jax.generators", "resolve"),
  "run": ("unseg_jax.pipeline", "run"),
  "sample_at": ("unseg_jax.generators", "sample_at"),
}


def __getattr__(name: str) -> Any:
  """Imports a public name when it is first used (PEP 562)."""
  if name not in _SOURCES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  module, source_name = _SOURCES[name]
  # Kept, so that this function is asked once.
  value = globals()[name] = getattr(importlib.import_module(module), source_name)
  return value


def __dir__() -> list[str]:
  """Lists the public names, those not imported yet included."""
  return sorted(globals().keys() | set(__all__))
