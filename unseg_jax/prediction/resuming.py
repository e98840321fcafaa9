"""Finds the images whose outputs of an earlier run are still valid."""

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

_DIGITS = 16  # Hexadecimal digits of each SHA-256 in a row.
_THREADS = 8

# Reasons for redoing images, for messages.
_CHANGED = {
  "input": "the picture changed",
  "segmenter": "the segmenter changed",
  "background": "the background changed",
  "settings": "the settings changed",
}


def made_of(
  segmenter: Segmenter, place: str, background: outputs.Background | None, settings: str
) -> dict[str, str]:
  """Returns the identities of everything that determines the outputs besides the image.

  Args:
    segmenter: the segmenter.
    place: the path or URL from which it was restored.
    background: the background of the composite.
    settings: other settings that affect an output.
  """
  parts = {"segmenter": _of_segmenter(segmenter, place), "settings": settings}
  if background is not None:
    parts["background"] = _of_arrays({"background": np.asarray(background)})
  return parts


def _of_segmenter(segmenter: Segmenter, place: str) -> str:
  """Returns the first digits of the SHA-256 of the weights, or of the ONNX file with them."""
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
  """The result of comparing the images with an earlier run.

  Attributes:
    todo: the images to segment, in order.
    made: the number of images whose outputs are kept.
    changed: the number of images to redo, by what changed.
    unidentified: the number of images that are kept although their rows lack identities.
  """

  todo: list[Picture]
  made: int = 0
  changed: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
  unidentified: int = 0

  def lines(self) -> list[str]:
    """Returns messages for the user."""
    messages = []
    if self.changed:
      reasons = "; ".join(f"{_CHANGED[what]} ({n})" for what, n in sorted(self.changed.items()))
      messages.append(f"redoing pictures: {reasons}")
    if self.unidentified:
      messages.append(
        f"kept: {self.unidentified} pictures of an earlier version, which did not record what they "
        "were made of; if they or the segmenter changed since, redo them with --overwrite and "
        "without --resume"
      )
    return messages


def sort_out(
  wanted: Mapping[Picture, Sequence[str]],
  existing: Collection[str],
  known: Mapping[str, manifest.Row],
  made_by: str,
  made_of: Mapping[str, str],
) -> Earlier:
  """Compares images with a manifest.

  Args:
    wanted: the images, and the names of their outputs.
    existing: the outputs that exist.
    known: the manifest's rows, as `manifest.read` returns them.
    made_by: the current run's settings; see `pictures.Work`.
    made_of: the current run's identities; see `made_of`.
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
  """Returns the first part that differs; "" if the image is unreadable; None if none differs."""
  before = before if isinstance(before, dict) else {}
  for what in ("segmenter", "settings", "background"):
    if before.get(what) != now.get(what):
      return what
  try:
    return None if inputs.identity(picture) == before.get("input") else "input"
  except inputs.Unreadable:
    return ""
