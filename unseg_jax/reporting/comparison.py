"""Several runs side by side on one HTML page, which shares its parts with the report of one run.

Each run has one colour in all charts. The page names what a run lacks.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from unseg_jax.artifacts import stage_records
from unseg_jax.errors import InvalidValue
from unseg_jax.images import drawing
from unseg_jax.reporting import charts, page, tables
from unseg_jax.reporting.contents import ReportContents, collect, configured_pictures, read_config
from unseg_jax.storage import places, whole_files

SAMPLES = 8  # Pairs of each run: enough to compare what the segmenters learn from.


def write(directories: Sequence[Path], path: Path) -> None:
  """Writes the page that compares runs; an existing page is replaced once the new one is complete.

  Each segmenter predicts masks for the images that any of the runs lists for its report.

  Args:
    directories: the workdirs of the runs.
    path: of the page.

  Raises:
    FileNotFoundError, ValueError: a folder is not a workdir, is given twice or is damaged, or an
      image is missing. The first two are raised before any work is done.
    OSError: the page cannot be written.
  """
  named = _named(directories)
  listed = [picture for folder in directories for picture in configured_pictures(folder)]
  # Runs may list the same file under different names.
  shown = list({picture.resolve(): picture for picture in listed}.values())
  runs = {
    name: collect(directory, shown, min(SAMPLES, read_config(directory)["report"]["samples"]))
    for name, directory in named.items()
  }
  whole_files.write_bytes(path, render(runs).encode())


def _named(directories: Sequence[Path]) -> dict[str, Path]:
  """Names each run after its folder, or by its path if another folder has the same name."""
  resolved = [directory.resolve() for directory in directories]
  for i, directory in enumerate(directories):
    if resolved[i] in resolved[:i]:
      raise InvalidValue(f"{directory} is given twice; expected different runs")
  names = [places.in_urls(str(path)).rpartition("/")[2] for path in resolved]
  return {
    name if names.count(name) == 1 else places.in_urls(str(directory)): directory
    for name, directory in zip(names, directories, strict=True)
  }


def render(runs: Mapping[str, ReportContents]) -> str:
  """Returns one self-contained HTML page that shows runs side by side.

  The same runs give the same page. Predictions of the same name belong to one image.

  Args:
    runs: the contents of each run, by the name that the page shows.

  Raises:
    ValueError: the contents are not as `ReportContents` describes them; see `report.render`.
  """
  settings = [stage_records.flatten(contents.config) for contents in runs.values()]
  keys = dict.fromkeys(key for run in settings for key in run)
  rows = {key: [str(run.get(key, "–")) for run in settings] for key in keys}
  differing = {key: values for key, values in rows.items() if len(set(values)) > 1}
  predictions: dict[str, dict[str, drawing.Views]] = {}
  for name, contents in runs.items():
    for tried in contents.predictions:
      predictions.setdefault(tried.name, {})[name] = drawing.views(tried.image, tried.probability)
  return page.TEMPLATES.get_template("comparison.html").render(
    title=f"{len(runs)} runs side by side",
    runs=runs,
    differing=differing,
    equal=len(rows) - len(differing),
    stages=_curves(runs),
    scores=tables.scores([(run.metrics, run.reference) for run in runs.values()]),
    baselines=_baselines(runs.values()),
    predictions=predictions,
  )


def _baselines(
  runs: Collection[ReportContents],
) -> Mapping[str, Mapping[str, Sequence[float | None]]]:
  """Returns by data set and baseline its mIoU in each run."""
  keys = dict.fromkeys(
    (d, answer) for run in runs for d in run.baselines for answer in run.baselines[d]
  )
  table: dict[str, dict[str, list[float | None]]] = {}
  for data_set, answer in keys:
    table.setdefault(data_set, {})[answer] = [
      run.baselines.get(data_set, {}).get(answer, {}).get("miou") for run in runs
    ]
  return table


def _curves(runs: Mapping[str, ReportContents]) -> Mapping[str, Mapping[str, charts.Curves]]:
  """Returns by stage and quantity the curve of each run."""
  stages: dict[str, dict[str, dict[str, charts.Curve]]] = {}
  for run, contents in runs.items():
    for stage, columns in contents.curves.items():
      quantities = stages.setdefault(stage, {})
      for quantity, curve in charts.stage_curves(stage, columns).items():
        quantities.setdefault(quantity, {})[run] = curve
  return stages
