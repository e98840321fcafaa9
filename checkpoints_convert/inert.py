"""Inert stand-ins for the classes and functions that a checkpoint names.

A pickle names classes and functions, and the arguments to call them with. Training checkpoints name
some that hold settings: hyper-parameters, command-line arguments, callbacks. PyTorch's restricted
reader receives a stand-in for each name. A stand-in never is, nor imports, the named object.
"""

import collections
import re
from typing import Any

from unseg_jax.errors import InvalidValue

# Classes of settings beside the weights. They can be constructed, but drop their arguments.
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
# Subclasses of dict and of list. They can be constructed and keep their items.
_DICTS = re.compile(
  r"collections\.defaultdict"
  r"|(dnnlib\.util|easydict)\.EasyDict|addict\.addict\.Dict|munch\.Munch|box\.box\.Box"
  r"|(yacs|fvcore\.common)\.config\.CfgNode"
  r"|(pytorch_lightning|lightning)(\.\w+)*\.AttributeDict"
)
_LISTS = re.compile(r"collections\.deque")


class Refused(InvalidValue):
  """A checkpoint would execute more than settings; the message is the name of the object."""


class Setting:
  """An empty object in place of settings."""

  __slots__ = ()

  def __new__(cls, *arguments: Any) -> "Setting":
    """Makes an empty object and ignores the arguments."""
    return object.__new__(cls)

  def __init__(self, *arguments: Any) -> None:
    """Ignores the arguments."""

  def __setstate__(self, state: Any) -> None:
    """Ignores the attributes from the file."""


def stand_in(name: str) -> type:
  """Makes the class that stands in for a name, such as `argparse.Namespace`.

  Its constructor returns a `Setting`, or a plain dict or list for the name of a subclass of these.
  It raises `Refused` if the name is not among the known settings.
  """
  if _DICTS.fullmatch(name):
    # PyTorch's reader sets attributes of OrderedDict, but of no other dict.
    return type(name, (), {"__new__": lambda cls, *arguments: collections.OrderedDict()})
  if _LISTS.fullmatch(name):
    return type(name, (), {"__new__": lambda cls, *arguments: []})
  if _SETTINGS.fullmatch(name):
    return type(name, (Setting,), {"__slots__": ()})

  def refuse(cls: type, *arguments: Any) -> None:
    raise Refused(name)

  return type(name, (), {"__new__": refuse})
