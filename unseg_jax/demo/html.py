"""Results as HTML with embedded images.

An embedded image has no URL that another visitor could open, and no file that must be deleted.
"""

from collections.abc import Sequence

import jinja2
import numpy as np
from markupsafe import Markup

from unseg_jax.demo.direction import Drawn, Search, judge, rejected_by
from unseg_jax.demo.search_history import Snapshot
from unseg_jax.images import drawing
from unseg_jax.images.writing import grid
from unseg_jax.reporting import charts, page

SIDE = 256  # Largest side of a generated image, in pixels.

# The templates and filters of the reports are available, too.
_TEMPLATES = page.TEMPLATES.overlay(
  loader=jinja2.ChoiceLoader([jinja2.PackageLoader("unseg_jax.demo"), page.LOADER])
)
STYLE = _TEMPLATES.get_template("style.css").render


def message(text: str) -> str:
  """Formats an error, which screen readers announce at once; empty for an empty text."""
  return Markup('<p class="refused" role="alert">{}</p>').format(text) if text else ""


def hint(text: str) -> str:
  """Formats a sentence in the place of the images to come."""
  return Markup('<div class="unseg"><p class="empty">{}</p></div>').format(text)


def views(shown: drawing.Views, share: float) -> str:
  """Formats the views of an image with their names, and its share of foreground pixels."""
  return _TEMPLATES.get_template("views.html").render(views=shown, share=share)


def direction(search: Search, drawn: Drawn, shift: float) -> str:
  """Formats latents at a shift: images, mask, and the verdicts of the filters."""
  latents = []
  for number in range(len(drawn.images)):
    columns = {"unshifted": drawn.images[number]}
    names = ("light", "dark") if len(drawn.shifted) == 2 else ("shifted",)
    columns |= {name: moved[number] for name, moved in zip(names, drawn.shifted, strict=True)}
    columns["difference"] = _colour(drawn.difference[number])
    columns["mask"] = _colour(np.where(drawn.masks[number], 255, 0).astype(np.uint8))
    judgements = judge(drawn, number, search.settings)
    latents.append((_small(columns), judgements, rejected_by(judgements)))
  return _TEMPLATES.get_template("direction.html").render(
    search=search, latents=latents, drawn=drawn, shift=shift
  )


def search_history(search: Search, losses: charts.Curves, passed: Sequence[Snapshot]) -> str:
  """Formats a search: its losses by step, and the same latents along earlier directions."""
  rows = []
  for snapshot in passed:
    masks = _colour(np.where(snapshot.drawn.masks, 255, 0).astype(np.uint8))
    cells = np.concatenate([*snapshot.drawn.shifted, masks])
    sheet = grid(cells, columns=len(masks))
    rows.append((snapshot, drawing.shrink(sheet, SIDE * len(masks))))
  charted = charts.share_axes(losses)
  return _TEMPLATES.get_template("search_history.html").render(
    search=search, charts=charted, order=list(losses), rows=rows
  )


def no_search(folder: str) -> str:
  """Formats the command that runs a search, for a folder without a finished one."""
  return _TEMPLATES.get_template("no_search.html").render(folder=folder)


def _small(columns: drawing.Views) -> drawing.Views:
  return {name: drawing.shrink(picture, SIDE) for name, picture in columns.items()}


def _colour(grey: np.ndarray) -> np.ndarray:
  return np.repeat(grey[..., None], 3, axis=-1)
