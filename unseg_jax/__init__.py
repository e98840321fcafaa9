"""Unsupervised foreground segmentation from pretrained image generators, in JAX and Flax.

A reimplementation of "Finding an Unsupervised Image Segmenter in Each of Your Deep Generative
Models" (Melas-Kyriazi, Rupprecht, Laina, Vedaldi, ICLR 2022, arXiv 2105.08127).

The names in `__all__` are the main interface. Each is imported on first use, so that `import
unseg_jax` is fast. Everything else is in the modules.
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

# Public name -> its module, and its name in that module.
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
  """Imports a public name on first use (PEP 562)."""
  if name not in _SOURCES:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  module, source_name = _SOURCES[name]
  # Stored, so that this function is called once per name.
  value = globals()[name] = getattr(importlib.import_module(module), source_name)
  return value


def __dir__() -> list[str]:
  """Lists the public names, including those not imported yet."""
  return sorted(globals().keys() | set(__all__))
