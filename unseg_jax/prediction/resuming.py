"""Which pictures an earlier run made already, of the same things and by the same settings."""

import collections
import concurrent.futures
import dataclasses
import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import flax
import numpy as np

from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.prediction import inputs, manifest, outputs
from unseg_jax.prediction.inputs import Picture
from unseg_jax.runtime.prefetch import prefetch
from unseg_jax.storage import places, whole_files

_DIGITS = 16  # Of the SHA-256 of what stands in every row.
_THREADS = 8

# What a line says of the pictures that are made anew, by what changed.
_CHANGED = {
  "input": "the picture itself changed",
  "segmenter": "another segmenter made them",
  "background": "the background changed",
  "settings": "other settings made them",
}


def made_of(
  segmenter: Segmenter, place: str, background: outputs.Background | None, settings: str
) -> dict[str, str]:
  """Identifies what the outputs of all pictures are made of, besides the picture itself.

  Args:
    segmenter: the segmenter.
    place: from where it was restored.
    background: for the composite.
    settings: other settings that change an output.
  """
  parts = {"segmenter": _of_segmenter(segmenter, place), "settings": settings}
  if background is not None:
    parts["background"] = _of_arrays({"background": np.asarray(background)})
  return parts


def _of_segmenter(segmenter: Segmenter, place: str) -> str:
  """Digits of a SHA-256 of the weights, or of the ONNX file that has them."""
  path = places.local(place)
  if not segmenter.variables and path.is_file():
    return whole_files.sha256(path)[:_DIGITS]
  weights = flax.traverse_util.flatten_dict(segmenter.variables, sep="/")
  return _of_arrays({**weights, "image_size": np.asarray(segmenter.image_size)})


def _of_arrays(arrays: Mapping[str, Any]) -> str:
  digest = hashlib.sha256()
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
    digest.update(array.tobytes())
  return digest.hexdigest()[:_DIGITS]


@dataclasses.dataclass
class Earlier:
  """What an earlier run left to do.

  Attributes:
    todo: the pictures that are to be made, in their order.
    made: the number of the others.
    changed: how many are made anew, by what changed.
    unidentified: how many are kept though their rows do not say what they were made of.
  """

  todo: list[Picture]
  made: int = 0
  changed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
  unidentified: int = 0

  def lines(self) -> list[str]:
    """What to say of it, a line each."""
    said = []
    if self.changed:
      reasons = "; ".join(f"{_CHANGED[what]} ({n})" for what, n in sorted(self.changed.items()))
      said.append(f"made anew: {self.changed.total()} pictures, as {reasons}")
    if self.unidentified:
      said.append(
        f"kept: {self.unidentified} pictures of a version that did not note what they were made "
        "of; if they or the segmenter changed since, --overwrite without --resume makes them anew"
      )
    return said


def sort_out(
  wanted: Mapping[Picture, Sequence[str]],
  existing: Collection[str],
  known: Mapping[str, manifest.Row],
  made_by: str,
  made_of: Mapping[str, str],
) -> Earlier:
  """Compares pictures with what a manifest says of them.

  Args:
    wanted: the pictures, and the names of their outputs.
    existing: outputs that exist.
    known: the manifest's rows, as `manifest.read` returns them.
    made_by: of the present run; see `pictures.Work`.
    made_of: of the present run.
  """
  earlier = Earlier([])

  def changed(item: tuple[Picture, Sequence[str]]) -> str | None:
    picture, names = item
    row = known.get(manifest.portable(picture.source), {})
    written = {manifest.portable(name) for name in names} <= set(row.get("outputs", ()))
    if not written or not all(name in existing for name in names):
      return ""
    if "made of" not in row:
      return "unidentified" if row.get("made by") == made_by else "settings"
    return _difference(picture, row["made of"], made_of)

  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    differences = prefetch(pool, changed, wanted.items(), 4 * _THREADS)
    for picture, difference in zip(wanted, differences, strict=True):
      if difference in (None, "unidentified"):
        earlier.made += 1
        earlier.unidentified += difference is not None
      else:
        earlier.todo.append(picture)
        earlier.changed.update([difference] if difference else [])
  return earlier


def _difference(picture: Picture, before: Any, now: Mapping[str, str]) -> str | None:
  """The first part that differs; "": the picture cannot be read; None: nothing differs."""
  before = before if isinstance(before, dict) else {}
  for what in ("segmenter", "settings", "background"):
    if before.get(what) != now.get(what):
      return what
  try:
    return None if inputs.identity(picture) == before.get("input") else "input"
  except inputs.Unreadable:
    return ""
