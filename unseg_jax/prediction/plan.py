"""Which pictures to segment, and where their outputs go: all refusals come before any work."""

import functools
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fsspec.utils import glob_translate

from unseg_jax.images import reading
from unseg_jax.storage import places
from unseg_jax.storage.file_trees import FileTree
from unseg_jax.storage.stores import open_store


class Picture(NamedTuple):
  """A picture to segment.

  Attributes:
    source: its path or URL.
    target: where its outputs go below the output folder, up to the ending of their names.
  """

  source: str
  target: str


def plan(pattern: str, output: FileTree, endings: Iterable[str]) -> list[Picture]:
  """Finds the pictures that a user means, sorted by where they are.

  Args:
    pattern: a picture, a folder (and all folders inside), or a glob; local or a URL. An output
      folder inside such a folder is not searched.
    output: receives the outputs; those of a folder get the same folders inside.
    endings: of the outputs' names.

  Raises:
    FileNotFoundError: no pictures match.
    ValueError: two pictures have the same folder and stem, or an output would replace a picture or
      become one of the next run's.
    OSError: a folder cannot be searched.
  """
  sources, root = _find_remote(pattern) if places.is_url(pattern) else _find_local(pattern)
  if root is None:
    pictures = [Picture(source, PurePosixPath(source).stem) for source in sources]
  else:
    pictures = _below(sources, root, output)
  _check_targets(pictures, output)
  _check_inputs_stay(pictures, output, endings)
  return pictures


def _find_local(pattern: str) -> tuple[list[str], str | None]:
  """The pictures, and the folder if the pattern names one."""
  root = os.path.expanduser(pattern)
  sources = [str(path) for path in reading.find_pictures(pattern, subfolders=True)]
  return sources, root.rstrip("/") or "/" if os.path.isdir(root) else None


def _find_remote(url: str) -> tuple[list[str], str | None]:
  url = url.rstrip("/")
  folder = re.split(r"/[^/]*[*?\[]", url, maxsplit=1)[0]
  store = open_store(folder)
  if folder == url and store.entry():
    return [url], None
  names = (f"{folder}/{name}" for name in store.list())
  sources = sorted(name for name in names if _is_visible_picture(name.removeprefix(f"{folder}/")))
  if folder != url:
    matches = re.compile(glob_translate(url)).fullmatch
    sources = [name for name in sources if matches(name)]
  if not sources:
    raise FileNotFoundError(f"{url}: there are no pictures; expected a picture, a folder or a glob")
  return sources, url if folder == url else None


def _is_visible_picture(name: str) -> bool:
  path = PurePosixPath(name)
  return reading.is_picture(path) and not any(part.startswith(".") for part in path.parts)


def _below(sources: Sequence[str], root: str, output: FileTree) -> list[Picture]:
  """The pictures of a folder, less those in the output folder, which keep their folders."""
  here = output.where("").rstrip("/")
  # Outputs must not be among the pictures of the next run: it would segment the masks of this one.
  inside = _resolved(here) != _resolved(root) and _is_inside(here, root)
  kept = _without_outputs(sources, here, root) if inside else sources
  pictures = []
  for source in kept:
    relative = PurePosixPath(source.removeprefix(root).lstrip("/"))
    target = str(relative.with_suffix(""))
    folder = output.where(str(relative.parent)).removesuffix("/.")
    if not inside and _is_inside(folder, root):
      raise ValueError(
        f"the outputs of {source} would go to {folder}, where the next run would take them for "
        f"pictures; use an --output such as {root}/segmented, which is not searched."
      )
    pictures.append(Picture(source, target))
  return pictures


def _without_outputs(sources: Sequence[str], output: str, root: str) -> list[str]:
  """Leaves out the pictures in the output folder, and says so."""
  kept = [source for source in sources if not _is_inside(os.path.dirname(source), output)]
  left_out = f"{len(sources) - len(kept)} pictures in --output={output}, which is not searched"
  if not kept:
    raise FileNotFoundError(
      f"the folder {root} has no pictures but {left_out}; use another --output, or give that "
      "folder as --input."
    )
  if len(kept) < len(sources):
    print(f"left out: {left_out}", file=sys.stderr)
  return kept


@functools.lru_cache(maxsize=1024)
def _resolved(place: str) -> str:
  """A folder as one string, wherever links lead."""
  return place if places.is_url(place) else str(Path(place).resolve())


def _is_inside(place: str, outer: str) -> bool:
  """Whether a folder is another one, or anywhere inside it."""
  outer = _resolved(outer)
  return f"{_resolved(place)}/".startswith(f"{outer.rstrip('/')}/")


def _check_targets(pictures: Sequence[Picture], output: FileTree) -> None:
  by_target: dict[str, Picture] = {}
  for picture in pictures:
    other = by_target.setdefault(picture.target, picture)
    if other is not picture:
      same_folder = os.path.dirname(other.source) == os.path.dirname(picture.source)
      remedy = "rename one of them" if same_folder else "give the folder above both as --input"
      raise ValueError(
        f"{other.source} and {picture.source} would both be written to "
        f"{output.where(picture.target)}_*; {remedy}, or segment them one at a time into different "
        "--output folders."
      )


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
        raise ValueError(
          f"an output of {picture.source} would replace the input {original.source}; use an "
          "--output folder other than that of the pictures."
        )
