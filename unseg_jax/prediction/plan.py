"""Which pictures to segment, and where their outputs go: all refusals come before any work."""

import collections
import functools
import glob
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from unseg_jax.errors import InvalidValue
from unseg_jax.images import reading
from unseg_jax.prediction.inputs import Picture
from unseg_jax.storage import places
from unseg_jax.storage.file_trees import FileTree
from unseg_jax.storage.stores import Entry, open_store


def plan(
  pattern: str, output: FileTree, endings: Iterable[str], say: Callable[[str], None]
) -> list[Picture]:
  """Finds the pictures that a user means, sorted by where they are.

  What has the name of a picture and is no file that can be read, such as a broken link, is among
  them, as is a folder that cannot be searched: `inputs.read` says why.

  Args:
    pattern: a picture, a folder (and all folders inside), or a glob; local or a URL. An output
      folder inside such a folder is not searched.
    output: receives the outputs; those of a folder get the same folders inside. A picture's outputs
      have its name without the suffix, or with it where two would else get the same.
    endings: of the outputs' names.
    say: is called with a line on what a user may not expect.

  Raises:
    FileNotFoundError: no pictures match.
    ValueError: an output would replace a picture or become one of the next run's.
    OSError: the folder cannot be searched.
  """
  entries: dict[str, Entry] = {}
  if places.is_url(pattern):
    entries, root = _find_remote(pattern)
    sources = list(entries)
  else:
    sources, root = _find_local(pattern)
  if root is not None:
    sources = _without_outputs(sources, root, output, say)
  targets = _targets(sources, root, output.ignores_case(), say)
  pictures = [
    Picture(source, target, *entries.get(source, ()))
    for source, target in zip(sources, targets, strict=True)
  ]
  if root is not None:
    _check_next_run(pictures, root, output)
  _check_inputs_stay(pictures, output, endings)
  return pictures


def _find_local(pattern: str) -> tuple[list[str], str | None]:
  """The pictures, and the folder if the pattern names one."""
  expanded = os.path.expanduser(pattern)
  if os.path.isdir(expanded):
    root = str(Path(expanded))
    unsearched: list[str] = []
    found = [str(path) for path in reading.named_pictures(root, _noted(root, unsearched))]
    if found or unsearched:
      return sorted(found + unsearched), root
    reading.find_pictures(expanded, subfolders=True)  # Says what was expected.
  # A name such as `photo[1].jpg` is a file before it is a glob.
  if os.path.lexists(expanded):
    return [str(Path(expanded))], None
  matches = {Path(name) for name in glob.glob(expanded, recursive=True)}
  found = [str(path) for path in matches if reading.is_picture(path) and not os.path.isdir(path)]
  return sorted(found) or [str(path) for path in reading.find_pictures(pattern)], None


def _noted(root: str, unsearched: list[str]) -> Callable[[OSError], None]:
  """Notes folders that cannot be searched; that of the user must be."""

  def note(error: OSError) -> None:
    if str(error.filename) == root:
      raise error
    unsearched.append(f"{error.filename}/")

  return note


def _find_remote(url: str) -> tuple[dict[str, Entry], str | None]:
  from fsspec.utils import glob_translate  # Here: local files need none of this library.

  url = url.rstrip("/")
  folder = re.split(r"/[^/]*[*?\[]", url, maxsplit=1)[0]
  store = open_store(folder)
  if folder == url and (entry := store.entry()):
    return {url: entry}, None
  listed = {f"{folder}/{name}": entry for name, entry in store.list().items()}
  sources = sorted(name for name in listed if _is_visible_picture(name.removeprefix(f"{folder}/")))
  if folder != url:
    matches = re.compile(glob_translate(url)).fullmatch
    sources = [name for name in sources if matches(name)]
  if not sources:
    raise FileNotFoundError(f"{url}: there are no pictures; expected a picture, a folder or a glob")
  return {name: listed[name] for name in sources}, url if folder == url else None


def _is_visible_picture(name: str) -> bool:
  path = PurePosixPath(name)
  return reading.is_picture(path) and not any(part.startswith(".") for part in path.parts)


def _without_outputs(
  sources: Sequence[str], root: str, output: FileTree, say: Callable[[str], None]
) -> list[str]:
  """Leaves out the pictures in an output folder inside the input folder, and says so.

  Outputs must not be among the pictures of the next run: it would segment the masks of this one.
  """
  here = output.where("").rstrip("/")
  if not _is_below(here, root):
    return list(sources)
  kept = [source for source in sources if not _is_inside(os.path.dirname(source), here)]
  left_out = f"{len(sources) - len(kept)} pictures in --output={here}, which is not searched"
  if not kept:
    raise FileNotFoundError(
      f"the folder {root} has no pictures but {left_out}; use another --output, or give that "
      "folder as --input."
    )
  if len(kept) < len(sources):
    say(f"left out: {left_out}")
  return kept


def _check_next_run(pictures: Sequence[Picture], root: str, output: FileTree) -> None:
  if _is_below(output.where("").rstrip("/"), root):
    return  # Which is not searched.
  for picture in pictures:
    folder = output.where(os.path.dirname(picture.target)).rstrip("/")
    if _is_inside(folder, root):
      raise InvalidValue(
        f"the outputs of {picture.source} would go to {folder}, where the next run would take them "
        f"for pictures; use an --output such as {root}/segmented, which is not searched."
      )


def _targets(
  sources: Sequence[str], root: str | None, ignores_case: bool, say: Callable[[str], None]
) -> list[str]:
  """Where the outputs of each picture go: names that are all different, and depend on no order.

  A picture's is its name without the suffix. Those that would share one get more of their paths:
  without a common root their folders, then their suffixes.
  """
  above = root or os.path.commonpath([os.path.dirname(source) for source in sources]) or "."
  choices = [_choices(source, above, root is None) for source in sources]
  levels = [0] * len(sources)
  while True:
    targets = [_choice(*chosen) for chosen in zip(choices, levels, strict=True)]
    by_target = collections.defaultdict(list)
    for index, target in enumerate(targets):
      by_target[target.casefold() if ignores_case else target].append(index)
    if len(by_target) == len(targets):
      break
    for same in by_target.values():
      longer = [index for index in same if levels[index] < len(choices[index]) - 1]
      # Where only numbers are left to tell them apart, the first keeps its name.
      for index in longer or same[1:] if len(same) > 1 else ():
        levels[index] += 1
  if renamed := [index for index, level in enumerate(levels) if level]:
    first = renamed[0]
    say(
      f"kept apart: {len(renamed)} pictures would share the outputs' names with others; those of "
      f"{sources[first]} begin with {targets[first]}_"
    )
  return targets


def _choices(source: str, above: str, flat: bool) -> list[str]:
  """The names for a picture's outputs, shortest first."""
  below = os.path.relpath(source, above) if flat else source.removeprefix(above).lstrip("/")
  if below.endswith("/"):
    return [below]  # A folder, which has no outputs.
  stem = str(PurePosixPath(below).with_suffix(""))
  return [*([PurePosixPath(source).stem] if flat else []), stem, below]


def _choice(choices: Sequence[str], level: int) -> str:
  beyond = level - len(choices) + 1
  return choices[level] if beyond <= 0 else f"{choices[-1]}~{beyond + 1}"


@functools.lru_cache(maxsize=1024)
def _resolved(place: str) -> str:
  """A folder as one string, wherever links lead."""
  return place if places.is_url(place) else str(Path(place).resolve())


def _is_below(place: str, outer: str) -> bool:
  """Whether a folder is inside another one, and not that itself."""
  return _resolved(place) != _resolved(outer) and _is_inside(place, outer)


def _is_inside(place: str, outer: str) -> bool:
  """Whether a folder is another one, or anywhere inside it."""
  outer = _resolved(outer)
  return f"{_resolved(place)}/".startswith(f"{outer.rstrip('/')}/")


def _check_inputs_stay(
  pictures: Sequence[Picture], output: FileTree, endings: Iterable[str]
) -> None:
  here = output.where("").rstrip("/")
  originals = {
    f"{_resolved(os.path.dirname(picture.source))}/{os.path.basename(picture.source)}": picture
    for picture in pictures
    if _is_inside(os.path.dirname(picture.source), here)
  }
  if not originals:
    return
  for picture in pictures:
    for ending in endings:
      folder, name = os.path.split(output.where(picture.target + ending))
      if original := originals.get(f"{_resolved(folder)}/{name}"):
        raise InvalidValue(
          f"an output of {picture.source} would replace the input {original.source}; use an "
          "--output folder other than that of the pictures."
        )
