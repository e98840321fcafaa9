"""Former names of settings, which workdirs, config files and commands may still use."""

import functools
import logging
from collections.abc import Mapping
from typing import Any

# Section of the config -> former name -> current name.
RENAMED = {"train": {"overlap": "iou_weight", "backgrounds": "copy_paste", "widths": "features"}}

log = logging.getLogger(__name__)


def in_record(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Renames flat settings, which map dotted names to values, to their current names."""
  return {_in_dotted(name): value for name, value in settings.items()}


def _in_dotted(name: str) -> str:
  section, _, rest = name.partition(".")
  key, dot, inner = rest.partition(".")
  known = RENAMED.get(section, {})
  return f"{section}.{known[key]}{dot}{inner}" if key in known else name


def in_section(section: str, settings: Mapping[str, Any]) -> dict[str, Any]:
  """Renames the settings of a config section to their current names."""
  return {RENAMED[section].get(name, name): value for name, value in settings.items()}


@functools.cache
def announce(section: str, name: Any) -> Any:
  """Returns the current name of a setting; warns once if a former name was used."""
  present = RENAMED[section].get(name, name)
  if present != name:
    log.warning("config.%s.%s is now called config.%s.%s", section, name, section, present)
  return present
