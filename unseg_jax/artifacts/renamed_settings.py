"""Renamed settings: workdirs, config files and commands that use a former name still work."""

import functools
import logging
from collections.abc import Mapping
from typing import Any

# Section of the config -> former name -> present name.
RENAMED = {"train": {"overlap": "iou_weight", "backgrounds": "copy_paste", "widths": "features"}}

log = logging.getLogger(__name__)


def in_record(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Returns flat settings, dotted names to values, by their present names."""
  return {_in_dotted(name): value for name, value in settings.items()}


def _in_dotted(name: str) -> str:
  section, _, rest = name.partition(".")
  key, dot, inner = rest.partition(".")
  known = RENAMED.get(section, {})
  return f"{section}.{known[key]}{dot}{inner}" if key in known else name


def in_section(section: str, settings: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the settings of a section of the config by their present names."""
  return {RENAMED[section].get(name, name): value for name, value in settings.items()}


@functools.cache
def announce(section: str, name: Any) -> Any:
  """Returns the present name of a setting; warns, once, where a former one was given."""
  present = RENAMED[section].get(name, name)
  if present != name:
    log.warning("config.%s.%s is now called config.%s.%s", section, name, section, present)
  return present
