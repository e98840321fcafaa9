"""Results as HTML that stands inside the page; pictures are embedded, so that none has an address.

Nobody else can open what has no address, and no file of it has to be deleted.
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

SIDE = 256  # Of a generator's picture, at most.

# Those of the reports' pages, and what they use, at hand.
_TEMPLATES = page.TEMPLATES.overlay(
  loader=jinja2.ChoiceLoader([jinja2.PackageLoader("unseg_jax.demo"), page.LOADER])
)
STYLE = _TEMPLATES.get_template("style.css").render


def message(text: str) -> str:
  """A message that stands out, and that screen readers read at once; nothing for no text."""
  return Markup('<p class="refused" role="alert">{}</p>').format(text) if text else ""


def hint(text: str) -> str:
  """A sentence that stands where pictures will be."""
  return Markup('<div class="unseg"><p class="empty">{}</p></div>').format(text)


def views(shown: drawing.Views, share: float) -> str:
  """What a segmenter makes of a picture: each view with its name."""
  return _TEMPLATES.get_template("views.html").render(views=shown, share=share)


def direction(search: Search, drawn: Drawn, shift: float) -> str:
  """Latents at a shift: the pictures of each, its mask, and what the filters say."""
  latents = []
  for number in range(len(drawn.images)):
    columns = {"as drawn": drawn.images[number]}
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
  """How a search went: its losses by step, and rows of latents along the direction as it was."""
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
  """What stands in place of a finished search: the command that makes one."""
  return _TEMPLATES.get_template("no_search.html").render(folder=folder)


def _small(columns: drawing.Views) -> drawing.Views:
  return {name: drawing.shrink(picture, SIDE) for name, picture in columns.items()}


def _colour(grey: np.ndarray) -> np.ndarray:
  return np.repeat(grey[..., None], 3, axis=-1)
