"""The small parts of HTML that the pages of `report.py` and `comparison.py` are made of.

Their styles are in `report_template.html`.
"""

import base64
import html
import importlib.resources
import io
import math
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from unseg_jax.reporting import pictures, tables
from unseg_jax.runtime import workdir

# Pictures are shrunk to what a page can show: photographs as PNG would make it very large.
LONGEST_SIDE = 512


def page(title: str, sections: Mapping[str, str]) -> str:
  """Returns a self-contained HTML page.

  Args:
    title: plain text.
    sections: the HTML of each section by its heading, which is plain text.
  """
  links = (f'<a href="#{_identifier(name)}">{name}</a>' for name in sections)
  header = (
    "<header><p>Unsupervised segmentation from a generator</p>"
    f"<h1>{text(title)}</h1><nav>{''.join(links)}</nav></header>"
  )
  body = (
    f'<section id="{_identifier(name)}">\n<h2>{name}</h2>\n{content}\n</section>'
    for name, content in sections.items()
  )
  template = (
    importlib.resources.files(__package__)
    .joinpath("templates", "report_template.html")
    .read_text("utf-8")
  )
  return string.Template(template).substitute(title=text(title), body="\n".join([header, *body]))


def _identifier(name: str) -> str:
  return name.lower().replace(" ", "-")


def write_page(content: str, path: Path) -> None:
  """Writes a page to `path`, whole or not at all; a page there before is replaced.

  Raises:
    OSError: the folder of `path` cannot be made or written to.
  """
  workdir.write_bytes(path, content.encode("utf-8"))


def text(value: Any) -> str:
  """Returns what to print, escaped; within quotation marks it serves as an attribute too."""
  return html.escape(str(value))


def lead(sentence: str) -> str:
  """Returns the sentence at the head of a section, given as plain text."""
  return f'<p class="lead">{text(sentence)}</p>'


def note(sentence: str) -> str:
  """Returns a remark below a picture or a chart, given as plain text."""
  return f'<p class="note">{text(sentence)}</p>'


def empty(sentence: str) -> str:
  """Returns what stands where there is nothing to show, given as plain text."""
  return f'<p class="empty">{text(sentence)}</p>'


def image(array: np.ndarray, description: str, style: str = "picture") -> str:
  """Returns a picture as an element that holds it as a PNG, at its own size.

  Args:
    array: uint8 [H, W], [H, W, 3] or [H, W, 4], or bool [H, W].
    description: plain text, for those who do not see it.
    style: its CSS classes.

  Raises:
    ValueError: the array is not as described.
  """
  array = np.asarray(array)
  return (
    f'<img class="{style}" src="{pictures.data_uri(array)}" alt="{text(description)}" '
    f'width="{array.shape[1]}" height="{array.shape[0]}">'
  )


def webp(animation: bytes, description: str) -> str:
  """Returns an animated WebP file as an element that holds it, described in plain text.

  Raises:
    ValueError: the bytes are no WebP.
  """
  try:
    with Image.open(io.BytesIO(animation), formats=["WEBP"]) as frames:
      width, height = frames.size
  except OSError as error:
    raise ValueError(
      f"the animation, {len(animation):,} bytes, is not a WebP file: {error}; make it again."
    ) from error
  uri = f"data:image/webp;base64,{base64.b64encode(animation).decode('ascii')}"
  return (
    f'<img class="picture" src="{uri}" alt="{text(description)}" width="{width}" height="{height}">'
  )


def sample_pairs(samples: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
  """Pictures, each beside its mask; to stand in an element of the class `samples`."""
  pairs = (
    f'<div class="pair">{image(picture, f"Synthetic picture {i}", "")}'
    f"{image(pictures.overlay(picture, mask), f'Mask of synthetic picture {i}', '')}</div>"
    for i, (picture, mask) in enumerate(samples, start=1)
  )
  return "".join(pairs)


def shrink(array: np.ndarray) -> np.ndarray:
  """Returns a uint8 [H, W, 3] or float32 [H, W] picture, no side longer than LONGEST_SIDE."""
  factor = LONGEST_SIDE / max(array.shape[:2])
  if factor >= 1:
    return array
  height, width = (max(1, round(side * factor)) for side in array.shape[:2])
  return np.asarray(Image.fromarray(array).resize((width, height), Image.Resampling.BOX))


def bar(name: str, value: float) -> str:
  """A filter's share as a bar and a number, two <dd> for a <dl> of the class `bars`.

  Raises:
    ValueError: the share is not within [0, 1], nor NaN.
  """
  return (
    f'<dd class="bar"><i style="width:{100 * _share(name, value):.2f}%"></i></dd>'
    f'<dd class="value">{"-" if math.isnan(value) else f"{value:.1%}"}</dd>'
  )


def _share(name: str, value: float) -> float:
  """Returns a filter's share, 0 where it is NaN (no candidates), if it lies within [0, 1]."""
  if math.isnan(value):
    return 0.0
  if not 0 <= value <= 1:
    raise ValueError(
      f'filter "{name}" accepts a share of {value}, but a share lies in [0, 1]; '
      "divide the number of accepted candidates by the number of all."
    )
  return value


def metric_label(name: str) -> str:
  """Returns a metric's name with its index set lower."""
  label, _, index = tables.METRIC_LABELS.get(name, name).partition("_")
  return f"{text(label)}<sub>{text(index.replace('beta', 'β'))}</sub>" if index else text(label)


def format_number(value: float, digits: int = 6) -> str:
  """Formats a number briefly, with a real minus sign."""
  return f"{value:.{digits}g}".replace("-", "−")
