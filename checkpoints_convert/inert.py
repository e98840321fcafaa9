"""What the names of classes and functions in a checkpoint stand for: nothing that can act.

A pickle names classes and functions, and what to call them with. Checkpoints of whole trainings
name a few that hold settings: hyper-parameters, command-line arguments, callbacks. PyTorch's
restricted reader gets a stand-in for each name, which never is, nor imports, what it is named for.
"""

import collections
import re
from typing import Any

from unseg_jax.errors import InvalidValue

# Classes of settings beside the weights: they may be made, and what they are made of is dropped.
_SETTINGS = re.compile(
  r"argparse\.Namespace|types\.SimpleNamespace"
  # Lightning's callbacks, enumerations and loggers, and OmegaConf's configs.
  r"|(omegaconf|pytorch_lightning|lightning|lightning_fabric|lightning_utilities|torchmetrics)"
  r"(\.\w+)*\.[A-Z]\w*"
  r"|ml_collections\.config_dict(\.\w+)*\.[A-Z]\w*"
  r"|builtins\.(type|object|frozenset|range|slice|tuple|list|dict|int|float|bool|str|bytes)"
  r"|datetime\.(date|datetime|time|timedelta|timezone)|decimal\.Decimal|uuid\.UUID"
  r"|pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path"
  r"|numpy\.(dtype|ndarray|dtypes\.\w+|_?core\.multiarray\.(scalar|_reconstruct))"
)
# Classes derived from dict, and from list: they may be made, and keep their items.
_DICTS = re.compile(
  r"collections\.defaultdict"
  r"|(dnnlib\.util|easydict)\.EasyDict|addict\.addict\.Dict|munch\.Munch|box\.box\.Box"
  r"|(yacs|fvcore\.common)\.config\.CfgNode"
  r"|(pytorch_lightning|lightning)(\.\w+)*\.AttributeDict"
)
_LISTS = re.compile(r"collections\.deque")


class Refused(InvalidValue):
  """Something beyond settings would have to be executed; its message is the name of that."""


class Setting:
  """An object of settings. It holds nothing."""

  __slots__ = ()

  def __new__(cls, *arguments: Any) -> "Setting":
    """Makes an object, whatever it would be made from."""
    return object.__new__(cls)

  def __init__(self, *arguments: Any) -> None:
    """Drops what the object would be made from."""

  def __setstate__(self, state: Any) -> None:
    """Drops the attributes that a file would set."""


def stand_in(name: str) -> type:
  """Makes the class that stands for a name, such as `argparse.Namespace`.

  To make an object of it gives a `Setting`, or a plain dict or list where the name is that of a
  derived one; and it raises `Refused` where the name is none of settings.
  """
  if _DICTS.fullmatch(name):
    # Of all dicts, PyTorch's reader sets attributes of this one only.
    return type(name, (), {"__new__": lambda cls, *arguments: collections.OrderedDict()})
  if _LISTS.fullmatch(name):
    return type(name, (), {"__new__": lambda cls, *arguments: []})
  if _SETTINGS.fullmatch(name):
    return type(name, (Setting,), {"__slots__": ()})

  def refuse(cls: type, *arguments: Any) -> None:
    raise Refused(name)

  return type(name, (), {"__new__": refuse})
