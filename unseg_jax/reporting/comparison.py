"""Several runs side by side in one HTML page, made of the same parts as the report of one.

Every run has a colour, which is the same in all charts. What a run lacks is named, not left out.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from unseg_jax.artifacts import stage_records
from unseg_jax.errors import InvalidValue
from unseg_jax.images import drawing
from unseg_jax.reporting import charts, page, tables
from unseg_jax.reporting.contents import ReportContents, collect, configured_pictures, read_config
from unseg_jax.storage import places, whole_files

SAMPLES = 8  # Of each run: enough to see what its segmenter learnt from, beside those of others.


def write(directories: Sequence[Path], path: Path) -> None:
  """Writes the page that compares runs atomically. It replaces an earlier page.

  Each run's segmenter is tried on the pictures that any of the runs lists for its report.

  Args:
    directories: the workdirs of the runs.
    path: where the page goes.

  Raises:
    FileNotFoundError, ValueError: a folder is no workdir, is given twice or is damaged, or the
      pictures are missing. The first two are raised before any work is done.
    OSError: the page cannot be written.
  """
  named = _named(directories)
  listed = [picture for folder in directories for picture in configured_pictures(folder)]
  # The same file may be listed by different names.
  shown = list({picture.resolve(): picture for picture in listed}.values())
  runs = {
    name: collect(directory, shown, min(SAMPLES, read_config(directory)["report"]["samples"]))
    for name, directory in named.items()
  }
  whole_files.write_bytes(path, render(runs).encode())


def _named(directories: Sequence[Path]) -> dict[str, Path]:
  """Calls each run by its folder's name, or by its path where others have the same name."""
  resolved = [directory.resolve() for directory in directories]
  for i, directory in enumerate(directories):
    if resolved[i] in resolved[:i]:
      raise InvalidValue(f"{directory} is given twice; expected runs that differ")
  names = [places.in_urls(str(path)).rpartition("/")[2] for path in resolved]
  return {
    name if names.count(name) == 1 else places.in_urls(str(directory)): directory
    for name, directory in zip(names, directories, strict=True)
  }


def render(runs: Mapping[str, ReportContents]) -> str:
  """Returns the text of one self-contained HTML page that shows runs side by side.

  The same runs give the same text. Predictions of the same name are taken to be of one picture.

  Args:
    runs: the results of each run, by what the page calls the run.

  Raises:
    ValueError: the contents are not as `ReportContents` describes them, see `report.render`.
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
    predictions=predictions,
  )


def _curves(runs: Mapping[str, ReportContents]) -> Mapping[str, Mapping[str, charts.Curves]]:
  """Returns for each stage and quantity a curve per run."""
  stages: dict[str, dict[str, dict[str, charts.Curve]]] = {}
  for run, contents in runs.items():
    for stage, columns in contents.curves.items():
      quantities = stages.setdefault(stage, {})
      for quantity, curve in charts.stage_curves(stage, columns).items():
        quantities.setdefault(quantity, {})[run] = curve
  return stages
