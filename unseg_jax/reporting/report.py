"""Stage 5: a run as one HTML page."""

from pathlib import Path

from unseg_jax.artifacts import stage_records
from unseg_jax.images import drawing
from unseg_jax.reporting import page, tables
from unseg_jax.reporting.charts import share_axes, stage_curves
from unseg_jax.reporting.contents import ReportContents
from unseg_jax.storage import whole_files


def render(contents: ReportContents) -> str:
  """Returns the report as one self-contained HTML page.

  The same contents give the same page.

  Raises:
    ValueError: an image, mask, share or curve is not as `ReportContents` describes it. Metrics,
      curves and probabilities may be infinite or NaN: the page then says so.
  """
  return page.TEMPLATES.get_template("report.html").render(
    title=contents.title,
    run=contents,
    stages={stage: share_axes(stage_curves(stage, log)) for stage, log in contents.curves.items()},
    metric_names=tables.metric_names(contents.metrics, contents.reference),
    predictions=[(p.name, drawing.views(p.image, p.probability)) for p in contents.predictions],
    settings=stage_records.flatten(contents.config),
  )


def write(contents: ReportContents, path: Path) -> None:
  """Writes the report to `path`; an existing file is replaced once the report is complete.

  Raises:
    ValueError: see `render`.
    OSError: the folder of `path` cannot be made or written to.
  """
  whole_files.write_bytes(path, render(contents).encode())
