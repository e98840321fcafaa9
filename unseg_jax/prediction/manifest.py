r"""The manifest `predictions.jsonl`: one line of JSON per image.

    {"input": "photos/a.jpg", "outputs": ["a_mask.png"], "width": 400, "height": 300,
     "foreground": 0.31, "made by": "...", "made of": {"segmenter": "...", "settings": "...",
     "input": {"bytes": 5120, "sha256": "..."}}}
    {"input": "photos/b.jpg", "skipped": "why"}

A name is written as the bytes that the file system stores, decoded as UTF-8, in every locale. A
byte that is not valid UTF-8 is written as JSON's escape of a lone surrogate: `\udce9` for the byte
E9. In a UTF-8 locale, `os.fsencode(json.loads(line)["input"])` restores the name in Python.

During a run, each process writes its lines to its own file in `predictions.parts`. At the end of
the run, or at the start of the next one, these files are merged into the manifest, sorted by input.
"""

import dataclasses
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from unseg_jax.storage.file_trees import FileTree, LocalTree, StoreTree

NAME = "predictions.jsonl"
PARTS = "predictions.parts"
PUBLISH_SECONDS = 30  # Interval of uploads to a store, where appending to an object is impossible.

Row = dict[str, Any]


def read(tree: FileTree) -> dict[str, Row]:
  """Reads the rows of all runs so far; later rows replace earlier ones.

  Returns:
    The rows by the names of their inputs, in the form that `portable` returns.
  """
  files = [NAME] * tree.has(NAME) + sorted(tree.names(PARTS))
  return {row["input"]: row for name in files for row in _rows(tree.read(name))}


def _rows(contents: bytes) -> Iterator[Row]:
  for line in contents.splitlines():
    try:
      row = json.loads(line)
    except ValueError:
      continue  # The incomplete last line of a killed process, possibly cut within a character.
    if isinstance(row, dict) and isinstance(row.get("input"), str):
      yield row


def portable(name: str) -> str:
  """Returns a file name as written to the manifest: the same in every locale."""
  try:
    return os.fsencode(name).decode("utf-8", "surrogateescape")
  except UnicodeEncodeError:
    return name  # The locale cannot encode the name of this object in a bucket.


def _line(row: Row) -> bytes:
  text = json.dumps(row, ensure_ascii=False)
  try:
    return text.encode() + b"\n"
  except UnicodeEncodeError:  # Lone surrogates: bytes that are not UTF-8.
    return json.dumps(row).encode() + b"\n"


def _portable(row: Row) -> Row:
  """Returns a row with its file names, and a message that contains one, made portable."""
  named: Row = {key: portable(row[key]) for key in ("input", "skipped") if key in row}
  if "outputs" in row:
    named["outputs"] = [portable(name) for name in row["outputs"]]
  return row | named


def fold(tree: FileTree) -> None:
  """Merges the files that the processes of earlier runs wrote into the manifest.

  Raises:
    OSError: the manifest cannot be written.
  """
  if not (parts := tree.names(PARTS)):
    return
  rows = read(tree)
  tree.write(NAME, b"".join(_line(rows[name]) for name in sorted(rows)))
  for name in parts:
    tree.remove(name)


@dataclasses.dataclass
class Part:
  """The lines that one process writes.

  Attributes:
    tree: the output folder.
    name: the file's name in the output folder.
    file: that file, or a temporary local file that is uploaded to the store.
    published: the time of the last upload.
  """

  tree: FileTree
  name: str
  file: io.BufferedRandom
  published: float

  @classmethod
  def begin(cls, tree: FileTree, process: int) -> "Part":
    """Opens the file of a process; `process` counts from 0."""
    name = f"{PARTS}/{process:05}.jsonl"
    if isinstance(tree, LocalTree):
      (tree.folder / PARTS).mkdir(parents=True, exist_ok=True)
      file = open(tree.folder / name, "w+b")
    else:
      file = tempfile.TemporaryFile()
    return cls(tree, name, file, time.monotonic())

  def add(self, row: Row) -> None:
    """Adds a row. A local file contains it immediately; a store receives it later."""
    self.file.write(_line(_portable(row)))
    self.file.flush()
    if time.monotonic() - self.published > PUBLISH_SECONDS:
      self.publish()

  def publish(self) -> None:
    """Uploads the lines so far if the output folder is in a store."""
    self.published = time.monotonic()
    if isinstance(self.tree, StoreTree):
      self.file.seek(0)
      self.tree.write(self.name, self.file.read())

  def close(self) -> None:
    """Closes and publishes the file; removes it if it has no rows."""
    empty = not self.file.tell()
    if not empty:
      self.publish()
    self.file.close()
    if empty:
      self.tree.remove(self.name)
