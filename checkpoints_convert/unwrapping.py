"""Finds a network in a checkpoint, regardless of the containers around it.

A checkpoint may be a bare state dict, or hold one under `netG`, `g_ema`, `params_ema` or any other
name at any depth. Every key may have a prefix, such as `module.` (DataParallel), `_orig_mod.`
(torch.compile) or the name of an attribute. The search therefore inspects every dict in the
checkpoint for the keys that identify one architecture, and removes any prefix.
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from checkpoints_convert import state_dict
from unseg_jax.errors import InvalidValue

# Architecture, config and variables, as returned by every format's `convert`.
Converted = tuple[str, dict, dict]
# Names of modules that wrap another module and are not layers of a network.
_WRAPPERS = {"_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_orig_mod", "module"}
_AVERAGES = {"average", "averaged", "avg", "ema", "running", "shadow", "swa"}


@dataclasses.dataclass(frozen=True)
class Place:
  """The location of a network in a checkpoint.

  Attributes:
    path: keys of the enclosing dicts, from the outermost.
    prefix: the prefix of every key, such as `net.`, or "".
    arrays: the network's arrays by upstream's key. Without a prefix, they include all other entries
      of the innermost dict.
    is_complete: whether all keys that identify the format are present.
  """

  path: tuple[str, ...]
  prefix: str
  arrays: Mapping[str, Any]
  is_complete: bool

  def __str__(self) -> str:
    names = [repr(name) for name in (*self.path, self.prefix) if name]
    return " > ".join(names) or "the top level"

  @property
  def is_average(self) -> bool:
    """Whether its name indicates weights averaged over training, such as `g_ema`."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", " ".join((*self.path, self.prefix)))
    return any(word.lower() in _AVERAGES for word in words)


def convert(
  checkpoint: Mapping,
  signature: Sequence[str],
  convert_arrays: Callable[[Mapping], Converted],
  preferred: str | None = None,
  beside: Sequence[str] = (),
) -> Converted:
  """Converts the one matching network in a checkpoint.

  If several match and differ only in their weights, the network whose name indicates an average
  over training is converted, because it generates better images.

  Args:
    checkpoint: nested dicts and lists of arrays and other values.
    signature: keys that only networks of the format contain.
    convert_arrays: converts arrays by key, and raises a ValueError if they do not match.
    preferred: the entry that holds the network to convert, by the format's convention.
    beside: optional entries of a network's enclosing dict that belong to it.

  Raises:
    ValueError: no network matches, several different ones do, or the settings are invalid. The
      message names the inspected locations and the problem of the nearest one.
  """
  places = list(find(checkpoint, signature, beside))
  fitting: list[tuple[Place, Converted]] = []
  errors: list[tuple[Place, ValueError]] = []
  for place in sorted(places, key=lambda place: not place.is_complete):
    if fitting and not place.is_complete:
      break
    try:
      fitting.append((place, convert_arrays(place.arrays)))
    except ValueError as error:
      errors.append((place, error))
  if fitting:
    return _choose(fitting, preferred)
  if not places:
    place = _largest(checkpoint)
    convert_arrays(place.arrays)  # No key matches the format, so this names the missing keys.
    raise InvalidValue(f"{place} holds no network of this format")
  place, problem = min(errors, key=lambda pair: getattr(pair[1], "count", 0))
  if place.path == () and place.prefix == "" and len(errors) == 1:
    raise problem
  looked = ", ".join(str(place) for place, _ in errors[:3])
  more = f" and {len(errors) - 3} more" if len(errors) > 3 else ""
  nearest = f"; the nearest is {place}" if len(errors) > 1 else ""
  message = f"looked in {looked}{more}{nearest}: {problem}"
  if isinstance(problem, state_dict.Mismatch):
    raise state_dict.Mismatch(message, problem.count) from problem
  raise InvalidValue(message) from problem


def _choose(fitting: Sequence[tuple[Place, Converted]], preferred: str | None) -> Converted:
  (_, first), *others = fitting
  if all(_is_same(first, other) for _, other in others):
    return first
  is_preferred = [place.path[-1:] == (preferred,) and not place.prefix for place, _ in fitting]
  if sum(is_preferred) == 1:
    return fitting[is_preferred.index(True)][1]
  averages = [converted for place, converted in fitting if place.is_average]
  is_twin = all(converted[:2] == first[:2] for _, converted in fitting)
  if is_twin and averages and all(_is_same(averages[0], other) for other in averages[1:]):
    return averages[0]
  places = ", ".join(sorted(str(place) for place, _ in fitting))
  raise InvalidValue(
    f"it holds several networks of this format, {places}, expected one: save only the "
    "`state_dict()` of the network to convert"
  )


def _is_same(one: Converted, other: Converted) -> bool:
  if one[:2] != other[:2]:
    return False
  leaves = [jax.tree.leaves(variables) for *_, variables in (one, other)]
  return all(np.array_equal(a, b) for a, b in zip(*leaves, strict=True))


def find(checkpoint: Any, signature: Sequence[str], beside: Sequence[str] = ()) -> Iterator[Place]:
  """Yields every location in a checkpoint that has a key of a format's signature.

  The arrays include the entries `beside` from the enclosing dict.
  """
  dicts: dict[tuple[str, ...], Mapping] = {}
  for path, arrays in _walk(checkpoint):
    dicts[path] = arrays  # The outermost dict comes first.
    around = dicts.get(path[:-1], {})
    found: dict[str, set[str]] = {}
    keys = {key: _without_wrappers(key) for key in arrays if isinstance(key, str)}
    for key in keys.values():
      for ending in signature:
        if key == ending or key.endswith(f".{ending}"):
          found.setdefault(key.removesuffix(ending), set()).add(ending)
    for prefix, endings in found.items():
      network = {
        short.removeprefix(prefix): arrays[key]
        for key, short in keys.items()
        if short.startswith(prefix) and not _is_beside(key, arrays[key])
      }
      network |= {name: around[name] for name in beside if name in around}
      yield Place(path, prefix, network, len(endings) == len(set(signature)))


def _is_beside(key: str, value: Any) -> bool:
  """Whether an entry cannot belong to a network, such as an epoch or an optimiser."""
  return "." not in key and not isinstance(value, np.ndarray)


def _without_wrappers(key: str) -> str:
  names = key.split(".")
  return ".".join([name for name in names[:-1] if name not in _WRAPPERS] + names[-1:])


def _walk(checkpoint: Any) -> Iterator[tuple[tuple[str, ...], Mapping]]:
  """Yields every dict in nested dicts and lists once, with its path, from the outermost."""
  waiting: collections.deque[tuple[tuple[str, ...], Any]] = collections.deque([((), checkpoint)])
  visited: set[int] = set()
  while waiting:
    path, value = waiting.popleft()
    if id(value) in visited:
      continue
    visited.add(id(value))
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
      if isinstance(item, Mapping | list):
        waiting.append(((*path, _name(key)), item))
    if isinstance(value, Mapping):
      yield path, value


def _name(key: Any) -> str:
  return key if isinstance(key, str) else getattr(key, "__name__", str(key))


def _largest(checkpoint: Any) -> Place:
  """Returns the dict that holds the most arrays."""
  path, arrays = max(
    _walk(checkpoint), key=lambda pair: sum(isinstance(x, np.ndarray) for x in pair[1].values())
  )
  return Place(path, "", arrays, is_complete=False)


def holds(checkpoint: Any, signature: Sequence[str]) -> bool:
  """Whether a checkpoint holds a network with all keys of a format's signature."""
  return any(place.is_complete for place in find(checkpoint, signature))
