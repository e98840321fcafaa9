"""Finds the images to segment and names their outputs; bad requests fail before any work."""

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
  """Finds the images that a pattern matches, sorted by path.

  The result includes unreadable entries with an image's name, such as broken links, and folders
  that cannot be searched; `inputs.read` reports the reason.

  Args:
    pattern: an image, a folder, which is searched with its subfolders, or a glob; local or a URL.
      An output folder inside the searched folder is skipped.
    output: the output folder. It gets the subfolders of a searched folder. The outputs of an image
      have its name without the suffix; with the suffix where two images would share their outputs'
      names.
    endings: the endings of the outputs' names.
    say: called with a line for each thing that a user may not expect.

  Raises:
    FileNotFoundError: no image matches.
    ValueError: an output would replace an image or become an input of the next run.
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
  """Returns the images, and the folder if the pattern names one."""
  expanded = os.path.expanduser(pattern)
  if os.path.isdir(expanded):
    root = str(Path(expanded))
    unsearched: list[str] = []
    found = [str(path) for path in reading.named_pictures(root, _noted(root, unsearched))]
    if found or unsearched:
      return sorted(found + unsearched), root
    reading.find_pictures(expanded, subfolders=True)  # Raises the error.
  # A name such as `photo[1].jpg` is tried as a file first, then as a glob.
  if os.path.lexists(expanded):
    return [str(Path(expanded))], None
  matches = {Path(name) for name in glob.glob(expanded, recursive=True)}
  found = [str(path) for path in matches if reading.is_picture(path) and not os.path.isdir(path)]
  return sorted(found) or [str(path) for path in reading.find_pictures(pattern)], None


def _noted(root: str, unsearched: list[str]) -> Callable[[OSError], None]:
  """Returns a handler that records unsearchable subfolders; raises if `root` is unsearchable."""

  def note(error: OSError) -> None:
    if str(error.filename) == root:
      raise error
    unsearched.append(f"{error.filename}/")

  return note


def _find_remote(url: str) -> tuple[dict[str, Entry], str | None]:
  from fsspec.utils import glob_translate  # Imported here: local files do not need it.

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
    raise FileNotFoundError(f"{url}: no pictures; expected a picture, a folder or a glob")
  return {name: listed[name] for name in sources}, url if folder == url else None


def _is_visible_picture(name: str) -> bool:
  path = PurePosixPath(name)
  return reading.is_picture(path) and not any(part.startswith(".") for part in path.parts)


def _without_outputs(
  sources: Sequence[str], root: str, output: FileTree, say: Callable[[str], None]
) -> list[str]:
  """Leaves out images in an output folder inside the input folder, and reports their number.

  Otherwise the next run would segment the masks of this one.
  """
  here = output.where("").rstrip("/")
  if not _is_below(here, root):
    return list(sources)
  kept = [source for source in sources if not _is_inside(os.path.dirname(source), here)]
  left_out = f"{len(sources) - len(kept)} pictures in --output={here}, which is not searched"
  if not kept:
    raise FileNotFoundError(
      f"the folder {root} has no pictures but {left_out}; use another --output, or pass that "
      "folder as --input."
    )
  if len(kept) < len(sources):
    say(f"left out: {left_out}")
  return kept


def _check_next_run(pictures: Sequence[Picture], root: str, output: FileTree) -> None:
  if _is_below(output.where("").rstrip("/"), root):
    return  # The output folder is not searched.
  for picture in pictures:
    folder = output.where(os.path.dirname(picture.target)).rstrip("/")
    if _is_inside(folder, root):
      raise InvalidValue(
        f"the outputs of {picture.source} would go to {folder}, where the next run would take them "
        f"as its input; use an --output such as {root}/segmented, which is not searched."
      )


def _targets(
  sources: Sequence[str], root: str | None, ignores_case: bool, say: Callable[[str], None]
) -> list[str]:
  """Returns the target of each image's outputs: unique names that do not depend on the order.

  A target is the image's name without the suffix. Images that would share a target get more of
  their paths: without a common root first their folders, then their suffixes.
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
      # If only numbers can distinguish them, the first keeps its name.
      for index in longer or same[1:] if len(same) > 1 else ():
        levels[index] += 1
  if renamed := [index for index, level in enumerate(levels) if level]:
    first = renamed[0]
    say(
      f"renamed: the outputs of {len(renamed)} pictures would share their names with others; those "
      f"of {sources[first]} begin with {targets[first]}_"
    )
  return targets


def _choices(source: str, above: str, flat: bool) -> list[str]:
  """Returns the candidate targets of an image, shortest first."""
  below = os.path.relpath(source, above) if flat else source.removeprefix(above).lstrip("/")
  if below.endswith("/"):
    return [below]  # An unsearchable folder has no outputs.
  stem = str(PurePosixPath(below).with_suffix(""))
  return [*([PurePosixPath(source).stem] if flat else []), stem, below]


def _choice(choices: Sequence[str], level: int) -> str:
  beyond = level - len(choices) + 1
  return choices[level] if beyond <= 0 else f"{choices[-1]}~{beyond + 1}"


@functools.lru_cache(maxsize=1024)
def _resolved(place: str) -> str:
  """Returns a folder's path with links resolved, or its URL."""
  return place if places.is_url(place) else str(Path(place).resolve())


def _is_below(place: str, outer: str) -> bool:
  """Whether a folder is inside another one and not identical with it."""
  return _resolved(place) != _resolved(outer) and _is_inside(place, outer)


def _is_inside(place: str, outer: str) -> bool:
  """Whether a folder is another one or inside it, at any depth."""
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
