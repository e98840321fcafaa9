"""The templates of the pages, and the filters that they use."""

import shlex
from collections.abc import Mapping
from typing import Any

import jinja2

from unseg_jax.evaluation import evaluate
from unseg_jax.images import drawing
from unseg_jax.reporting import charts, embedding, tables, under_way


def share_of(value: float, name: str) -> float:
  """Returns the share of the candidates that a filter accepts, after checking it.

  Raises:
    ValueError: the share is neither in [0, 1] nor NaN.
  """
  if value < 0 or value > 1:
    raise ValueError(
      f'filter "{name}" accepts a share of {value}; expected a share in [0, 1]: '
      "divide the number of accepted candidates by the number of all candidates."
    )
  return value


def baselines_of(run: Any, data_set: str) -> Mapping[str, Mapping[str, float]]:
  """Returns the metrics of each baseline on a data set of a `ReportContents`."""
  return run.baselines.get(data_set.removesuffix(evaluate.BEFORE), {})


def measured_on(run: Any, data_set: str) -> str:
  """Returns what the scores of a data set are measured on, such as `70 labelled real images`."""
  count = run.image_counts.get(data_set.removesuffix(evaluate.BEFORE))
  kind = "held-out synthetic pair" if evaluate.is_synthetic(data_set) else "labelled real image"
  plural = kind if count == 1 else f"{kind}s"
  return plural if count is None else f"{count:,} {plural}"


def direction_count(run: Any) -> int:
  """Returns the number of directions that the run of a `ReportContents` searches for."""
  return run.config.get("search", {}).get("directions", 1)


LOADER = jinja2.PackageLoader("unseg_jax.reporting")
TEMPLATES = jinja2.Environment(
  loader=LOADER,
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
)
TEMPLATES.globals["nan"] = float("nan")
TEMPLATES.globals["metric_labels"] = tables.METRIC_LABELS
TEMPLATES.filters["quote"] = shlex.quote
TEMPLATES.tests["synthetic"] = evaluate.is_synthetic
for function in (
  *(charts.draw, charts.format_number, charts.gaps, charts.logarithmic, charts.series_style),
  *(
    embedding.data_uri,
    embedding.embed,
    embedding.embed_webp,
    drawing.overlay,
    tables.headline,
    tables.metric_label,
    under_way.state_text,
    under_way.when_read,
    baselines_of,
    direction_count,
    measured_on,
    share_of,
  ),
):
  TEMPLATES.filters[function.__name__] = function
