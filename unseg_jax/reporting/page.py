"""The templates of the pages, and what these use to show pictures and numbers."""

import jinja2

from unseg_jax.images import drawing
from unseg_jax.reporting import charts, embedding, tables


def share_of(value: float, name: str) -> float:
  """Returns the share of the candidates that a filter accepts, if it lies in [0, 1] or is NaN.

  Raises:
    ValueError: it does not.
  """
  if value < 0 or value > 1:
    raise ValueError(
      f'filter "{name}" accepts a share of {value}, but a share lies in [0, 1]; '
      "divide the number of accepted candidates by the number of all."
    )
  return value


LOADER = jinja2.PackageLoader("unseg_jax.reporting")
TEMPLATES = jinja2.Environment(
  loader=LOADER,
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
)
TEMPLATES.globals["nan"] = float("nan")
for function in (
  *(charts.draw, charts.format_number, charts.gaps, charts.logarithmic, charts.series_style),
  *(
    embedding.data_uri,
    embedding.embed,
    embedding.embed_webp,
    drawing.overlay,
    tables.metric_label,
    share_of,
  ),
):
  TEMPLATES.filters[function.__name__] = function
