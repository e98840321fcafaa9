"""Loads the configs of this checkout, without an installation of the package."""

import importlib.util
from pathlib import Path

import ml_collections

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def load(config_file: str) -> ml_collections.ConfigDict:
  """Loads a config file such as `biggan.py:256`."""
  file, _, argument = config_file.partition(":")
  spec = importlib.util.spec_from_file_location(file.removesuffix(".py"), CONFIGS / file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(*([argument] if argument else []))
