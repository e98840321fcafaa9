"""Checks of settings against rules."""

import ml_collections

from unseg_jax.errors import InvalidValue


def check(section: str, config: ml_collections.ConfigDict, *rules: tuple[str, str, bool]) -> None:
  """Raises a ValueError that names the first setting that breaks its rule.

  Args:
    section: the name of this part of the config, such as `train`.
    config: this part of the config.
    *rules: name of a setting, what is expected of it, and whether it is met.
  """
  for name, expected, valid in rules:
    if not valid:
      raise InvalidValue(f"config.{section}.{name}={config[name]}: expected {expected}")


def check_counts(section: str, config: ml_collections.ConfigDict, *names: str) -> None:
  """Raises a ValueError that names the first of these settings that is below 1."""
  check(section, config, *((name, "at least 1", config[name] >= 1) for name in names))
