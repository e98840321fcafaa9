"""Settings that have another name now: workdirs, scripts and commands with the old ones work on."""

import functools
import logging
from collections.abc import Mapping
from typing import Any

# Section of the config -> old name -> new name.
RENAMED = {"train": {"overlap": "iou_weight", "backgrounds": "copy_paste", "widths": "features"}}

log = logging.getLogger(__name__)


def in_record(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Returns flat settings, dotted names to values, by their new names."""
  return {_in_dotted(name): value for name, value in settings.items()}


def _in_dotted(name: str) -> str:
  section, _, rest = name.partition(".")
  key, dot, inner = rest.partition(".")
  known = RENAMED.get(section, {})
  return f"{section}.{known[key]}{dot}{inner}" if key in known else name


def in_section(section: str, settings: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the settings of a section of the config by their new names."""
  return {RENAMED[section].get(name, name): value for name, value in settings.items()}


@functools.cache
def announce(section: str, old: str) -> str:
  """Returns the new name of a setting; says so, once, where it has another one now."""
  new = RENAMED[section].get(old, old)
  if new != old:
    log.warning("config.%s.%s is now called config.%s.%s", section, old, section, new)
  return new
