r"""What was made of which picture: `predictions.jsonl`, one line of JSON for each.

    {"input": "photos/a.jpg", "outputs": ["a_mask.png"], "width": 400, "height": 300,
     "foreground": 0.31, "made by": "...", "made of": {"segmenter": "...", "settings": "...",
     "input": {"bytes": 5120, "sha256": "..."}}}
    {"input": "photos/b.jpg", "skipped": "why"}

A name is the bytes that the disk has for it, as UTF-8, whatever the locale. A byte that is no UTF-8
is written as JSON's escape of a lone surrogate, `\udce9` for the byte E9: in Python,
`os.fsencode(json.loads(line)["input"])` is the name again, where names are UTF-8.

While a run goes on, each process writes its lines to a file of its own in `predictions.parts`; at
the end, or when the next run starts, they become the one file, in the inputs' order.
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
PUBLISH_SECONDS = 30  # A store gets the lines so far after so long: objects cannot grow.

Row = dict[str, Any]


def read(tree: FileTree) -> dict[str, Row]:
  """Reads the rows of all runs so far; later ones replace earlier ones.

  Returns:
    The rows by their inputs' names, as `portable` has them.
  """
  files = [NAME] * tree.has(NAME) + sorted(tree.names(PARTS))
  return {row["input"]: row for name in files for row in _rows(tree.read(name))}


def _rows(contents: bytes) -> Iterator[Row]:
  for line in contents.splitlines():
    try:
      row = json.loads(line)
    except ValueError:
      continue  # The last line of a process that was killed, maybe in the middle of a letter.
    if isinstance(row, dict) and isinstance(row.get("input"), str):
      yield row


def portable(name: str) -> str:
  """Returns the name of a file as it stands in the manifest, the same in every locale."""
  try:
    return os.fsencode(name).decode("utf-8", "surrogateescape")
  except UnicodeEncodeError:
    return name  # Of an object in a bucket, which the locale has no bytes for.


def _line(row: Row) -> bytes:
  text = json.dumps(row, ensure_ascii=False)
  try:
    return text.encode() + b"\n"
  except UnicodeEncodeError:  # Lone surrogates, which stand for bytes that are no UTF-8.
    return json.dumps(row).encode() + b"\n"


def _portable(row: Row) -> Row:
  """Returns a row with its names, and a message that holds one, as they stand in the manifest."""
  named: Row = {key: portable(row[key]) for key in ("input", "skipped") if key in row}
  if "outputs" in row:
    named["outputs"] = [portable(name) for name in row["outputs"]]
  return row | named


def fold(tree: FileTree) -> None:
  """Makes one file of those that the processes of earlier runs wrote.

  Raises:
    OSError: it cannot be written.
  """
  if not (parts := tree.names(PARTS)):
    return
  rows = read(tree)
  tree.write(NAME, b"".join(_line(rows[name]) for name in sorted(rows)))
  for name in parts:
    tree.remove(name)


@dataclasses.dataclass
class Part:
  """The lines of one process, as they come.

  Attributes:
    tree: the output folder.
    name: of the file in it.
    file: that file, or the local one whose contents the store gets.
    published: when the store got them last.
  """

  tree: FileTree
  name: str
  file: io.BufferedRandom
  published: float

  @classmethod
  def begin(cls, tree: FileTree, process: int) -> "Part":
    """Starts the file of a process, from 0."""
    name = f"{PARTS}/{process:05}.jsonl"
    if isinstance(tree, LocalTree):
      (tree.folder / PARTS).mkdir(parents=True, exist_ok=True)
      file = open(tree.folder / name, "w+b")
    else:
      file = tempfile.TemporaryFile()
    return cls(tree, name, file, time.monotonic())

  def add(self, row: Row) -> None:
    """Adds a row; a local file holds it at once."""
    self.file.write(_line(_portable(row)))
    self.file.flush()
    if time.monotonic() - self.published > PUBLISH_SECONDS:
      self.publish()

  def publish(self) -> None:
    """Writes the lines so far to the store, if the output folder is in one."""
    self.published = time.monotonic()
    if isinstance(self.tree, StoreTree):
      self.file.seek(0)
      self.tree.write(self.name, self.file.read())

  def close(self) -> None:
    """Ends the file, and publishes all of it; a file without rows is removed."""
    empty = not self.file.tell()
    if not empty:
      self.publish()
    self.file.close()
    if empty:
      self.tree.remove(self.name)
