r"""Stage 5: one HTML page to look at, of a run or of several side by side.

  python -m unseg_jax.report runs/NAME                  writes runs/NAME/report.html anew
  python -m unseg_jax.report runs/NAME runs/OTHER ...   compares the runs in comparison.html

The runs are named by their workdirs; what a run lacks, as it is not finished, the page says. The
page stands alone: it asks no host for anything, needs no script, follows the reader's light or dark
theme, and fits a phone. A page that is there already is replaced, whole or not at all.

The exit status is 1 if anything went wrong, and stderr says what.
"""

# `collect` reads what a run found and `render` turns it into a page, of the parts in
# `html_parts.py` and `charts.py`; `comparison.py` builds the page of several runs.

import dataclasses
import importlib.resources
import itertools
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from absl import logging as absl_logging

from unseg_jax import evaluation, pictures, tables, workdir
from unseg_jax.charts import chart, share_axes, stage_curves
from unseg_jax.data import folder as folder_data
from unseg_jax.data import synthetic
from unseg_jax.html_parts import (
  bar,
  empty,
  format_number,
  image,
  lead,
  metric_label,
  note,
  page,
  sample_pairs,
  shrink,
  text,
  webp,
  write_page,
)
from unseg_jax.segmenter import Segmenter

EXAMPLE = "example:"
SEARCH = "Search"  # The stage of the curves that are not of the training.
NO_DIRECTION = "No direction was drawn."
NO_SAMPLES = "No synthetic pairs were kept."
NO_FILTERS = "No filter was applied."
NO_CURVES = "No losses were logged."
NO_PREDICTIONS = "The segmenter was tried on no picture."


@dataclasses.dataclass(frozen=True)
class Prediction:
  """A picture and what the segmenter says of it.

  Attributes:
    name: what to call the picture, such as its file name.
    image: uint8 [H, W, 3].
    probability: float32 [H, W] in [0, 1], how likely each pixel is foreground.
  """

  name: str
  image: np.ndarray
  probability: np.ndarray


@dataclasses.dataclass(frozen=True)
class Restart:
  """One of several searches for a direction, each from a start of its own.

  Attributes:
    name: what to call it, such as its number.
    chosen: whether its direction is the one that the run uses.
    scores: numbers that rank the searches without labels, by name.
    picture: its direction, as `ReportContents.direction_picture`; may be empty.
  """

  name: str
  chosen: bool
  scores: Mapping[str, float]
  picture: np.ndarray


@dataclasses.dataclass(frozen=True)
class ReportContents:
  """What a report shows; every part but the title may be empty, and the page then says so.

  Attributes:
    title: the page's title.
    config: the run's settings, a plain dict, nested as need be.
    direction_picture: uint8 [H, W, 3], in each row one latent at shifts 0, 2, 4, 6, and its mask.
    samples: synthetic pairs, uint8 [H, W, 3] images and bool [H, W] masks.
    filters: for each filter, and for "all" of them, the share in [0, 1] of the candidates that it
      accepts.
    curves: for each stage the columns of its log: "step", and any number of others as long.
    metrics: for each data set its metrics by name ("accuracy", "iou", "f_beta", "f_max").
    predictions: pictures that the segmenter was tried on, each by a name of its own.
    restarts: the searches that the direction was chosen from; empty if there was only one.
    animation: an animated WebP of latents that move along the direction.
    reference: for any of the data sets the published metrics by name.
  """

  title: str
  config: Mapping[str, Any]
  direction_picture: np.ndarray
  samples: Sequence[tuple[np.ndarray, np.ndarray]]
  filters: Mapping[str, float]
  curves: Mapping[str, Mapping[str, Sequence[float]]]
  metrics: Mapping[str, Mapping[str, float]]
  predictions: Sequence[Prediction]
  restarts: Sequence[Restart] = ()
  animation: bytes = b""
  reference: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)


def collect(directory: Path, picture_paths: Sequence[Path], samples: int) -> ReportContents:
  """Reads what a run left in its workdir, and tries its segmenter on pictures.

  Args:
    directory: the workdir; parts of stages that it lacks are left empty.
    picture_paths: what to try the segmenter on, if there is one. A prediction is called by the
      picture's stem, or by its path where another picture has the same stem.
    samples: how many synthetic pairs to take, at most.

  Raises:
    FileNotFoundError, ValueError: this is no workdir, or one of its files or a picture is damaged.
  """
  config = read_config(directory)
  search, generate, train = (directory / stage for stage in ("search", "generate", "train"))
  curves = {SEARCH: _json_or_empty(search / "history.json")}
  animation = search / "direction.webp"
  return ReportContents(
    title=config["name"],
    config=config,
    direction_picture=_picture_or_empty(search / "direction.png"),
    samples=_read_samples(generate, samples),
    filters=_json_or_empty(generate / "filters.json").get("rates", {}),
    curves={
      stage: columns
      for stage, columns in (curves | _json_or_empty(train / "history.json")).items()
      if columns
    },
    metrics=_json_or_empty(directory / "metrics.json"),
    predictions=_predict(directory, picture_paths),
    restarts=_read_restarts(search),
    animation=animation.read_bytes() if animation.exists() else b"",
    reference=config["evaluate"]["reference"],
  )


def read_config(directory: Path) -> dict[str, Any]:
  """Reads the settings of a run, nested as in `default_config.py`.

  Raises:
    FileNotFoundError: the folder is no workdir, as it has no config.json.
    ValueError: that file is damaged, or is not of a run.
  """
  path = directory / "config.json"
  if not path.exists():
    raise FileNotFoundError(
      f"{directory} is not the workdir of a run: it has no config.json. Expected the --workdir of "
      "`python -m unseg_jax.main`, by default runs/NAME."
    )
  config = workdir.read_json(path)
  needed = {"name": str, "evaluate": dict, "report": dict}
  if not isinstance(config, dict) or not all(
    isinstance(config.get(key), kind) for key, kind in needed.items()
  ):
    raise ValueError(
      f"{path} does not hold the settings of a run: expected an object with {', '.join(needed)}. "
      "Run again with this --workdir to write it anew."
    )
  return config


def find_pictures(names: Sequence[str]) -> list[Path]:
  """Finds the pictures that `config.report.pictures` lists.

  Args:
    names: files, folders, globs, or `example:NAME` of the examples that the package ships.

  Raises:
    FileNotFoundError: a name matches nothing.
  """
  examples = importlib.resources.files(__package__) / "pretrained" / "example"
  found = []
  for name in names:
    if name.startswith(EXAMPLE):
      name = str(examples / name.removeprefix(EXAMPLE))
    found += folder_data.find_pictures(name)
  return found


def render(contents: ReportContents) -> str:
  """Returns the report as the text of one self-contained HTML page.

  The same contents give the same text.

  Raises:
    ValueError: a picture, mask, share or curve is not as `ReportContents` describes it. Metrics,
      curves and probabilities that are not finite are no error: the page shows that they are so.
  """
  sections = {
    "Results": _headline(contents.metrics),
    "Direction": _direction(contents),
    "Synthetic set": _samples(contents.samples),
    "Filters": _filters(contents.filters),
    "Losses": _curves(contents.curves),
    "Metrics": _metrics(contents.metrics, contents.reference),
    "Predictions": _predictions(contents.predictions),
    "Config": _config(contents.config),
  }
  return page(contents.title, sections)


def write(contents: ReportContents, path: Path) -> None:
  """Writes the report to `path`, whole or not at all; a report there before is replaced.

  Raises:
    ValueError: see `render`.
    OSError: the folder of `path` cannot be made or written to.
  """
  write_page(render(contents), path)


def main(argv: Sequence[str]) -> int:
  """Runs the command that the arguments describe; returns its exit status."""
  try:
    print(f"report: {make(argv[1:], flags.FLAGS.output)}")
  except (ImportError, OSError, ValueError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  return 0


def make(runs: Sequence[str], output: str | None) -> Path:
  """Writes the page of one run, or that which compares several.

  Args:
    runs: their workdirs.
    output: where the page goes; if None, report.html in the workdir of one run, and
      comparison.html in the current folder for several.

  Returns:
    Where the page went.

  Raises:
    FileNotFoundError, ValueError: there is no run, one is no workdir, is damaged or given twice,
      its pictures are not there, or `output` is no name of a page. The page is not touched.
    OSError: the page cannot be written.
  """
  directories = [Path(os.path.expanduser(run)) for run in runs]
  if not directories:
    raise ValueError("no run given; usage: python -m unseg_jax.report RUN [RUN ...]")
  default = "comparison.html" if len(directories) > 1 else directories[0] / "report.html"
  path = Path(os.path.expanduser(output or default))
  if path.suffix.lower() not in (".html", ".htm") or path.is_dir():
    raise ValueError(f"--output={output}: expected the name of a page, such as comparison.html")
  if len(directories) > 1:
    # Not at the top: it builds on this file.
    from unseg_jax import comparison

    comparison.write(directories, path)
  else:
    (directory,) = directories
    listed = configured_pictures(directory)
    write(collect(directory, listed, read_config(directory)["report"]["samples"]), path)
  return path


def configured_pictures(directory: Path) -> list[Path]:
  """Finds the pictures that a run's config.json lists for its report.

  Raises:
    FileNotFoundError, ValueError: this is no workdir, or the pictures are not there.
  """
  try:
    return find_pictures(read_config(directory)["report"]["pictures"])
  except FileNotFoundError as error:
    if not (directory / "config.json").exists():
      raise
    raise FileNotFoundError(
      f"report.pictures of {directory / 'config.json'}: {error} Relative names start at the "
      "current folder: go to the one that the run was started in, or correct the names there."
    ) from error


# Reading a workdir.


def _json_or_empty(path: Path) -> dict[str, Any]:
  return workdir.read_json(path) if path.exists() else {}


def _picture_or_empty(path: Path) -> np.ndarray:
  return folder_data.read_picture(path) if path.exists() else np.zeros((0, 0, 3), np.uint8)


def _read_samples(folder: Path, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
  try:
    held_out = synthetic.read(folder, "test")
  except FileNotFoundError:
    return []
  return list(itertools.islice(evaluation.synthetic_pairs(held_out), count))


def _read_restarts(folder: Path) -> list[Restart]:
  path = folder / "restarts.json"
  if not path.exists():
    return []
  restarts = []
  for record in workdir.read_json(path):
    number, chosen = record.pop("restart"), record.pop("chosen")
    picture = _picture_or_empty(folder / f"restart-{number}.png")
    restarts.append(Restart(str(number), chosen, record, picture))
  return restarts


def _predict(directory: Path, picture_paths: Sequence[Path]) -> list[Prediction]:
  if not picture_paths:
    return []
  try:
    segmenter = Segmenter.restore(directory)
  except FileNotFoundError:
    return []
  stems = [path.stem for path in picture_paths]
  images = (folder_data.read_picture(path) for path in picture_paths)
  return [
    Prediction(path.stem if stems.count(path.stem) == 1 else str(path), image, segmenter(image))
    for path, image in zip(picture_paths, images, strict=True)
  ]


# Sections, in the order of the page. Each returns HTML.


def _headline(metrics: Mapping[str, Mapping[str, float]]) -> str:
  """A tile per metric where there is one data set, else a tile per data set with its IoU."""
  if not metrics:
    return empty(tables.NO_METRICS)
  if len(metrics) == 1:
    ((data_set, values),) = metrics.items()
    sentence = f"The trained segmenter on {data_set}."
    tiles = [(metric_label(name), value, "") for name, value in values.items()]
  else:
    sentence = "IoU of the trained segmenter on each data set."
    tiles = [
      (
        text(data_set),
        values.get("iou", math.nan),
        "<br>".join(f"{metric_label(k)} {v:.4f}" for k, v in values.items() if k != "iou"),
      )
      for data_set, values in metrics.items()
    ]
  cards = (
    f'<div class="card"><dt>{label}</dt><dd>{value:.4f}<small>{details}</small></dd></div>'
    for label, value, details in tiles
  )
  return f'{lead(sentence)}<dl class="tiles">{"".join(cards)}</dl>'


def _direction(contents: ReportContents) -> str:
  views = direction_views(contents)
  if not views and not contents.restarts:
    return empty(NO_DIRECTION)
  card = f'<figure class="card"><div class="direction">{views}</div></figure>' if views else ""
  return f"{lead(DIRECTION_LEAD) if views else ''}{card}{_restarts(contents.restarts)}"


DIRECTION_LEAD = (
  "Each row is one latent, moved along the direction by 0, 2, 4 and 6, and where there are two by "
  "2, 4 and 6 along the second; its last picture is the mask that the change in brightness gives."
)


def direction_views(contents: ReportContents) -> str:
  """The animation and the picture of a direction, as far as they are there.

  Raises:
    ValueError: the animation is no WebP.
  """
  still, moving = contents.direction_picture, ""
  if contents.animation:
    moving = webp(contents.animation, "Latents that move along the direction")
    moving = f'<div class="moving">{moving}</div>'
  description = "Pictures of latents moved along the direction, and their masks"
  return moving + (image(still, description) if np.size(still) else "")


def _restarts(restarts: Sequence[Restart]) -> str:
  """A row of scores per search, and below the table their pictures side by side."""
  if not restarts:
    return ""
  names = dict.fromkeys(name for restart in restarts for name in restart.scores)
  head = "".join(f'<th scope="col">{text(_words(name))}</th>' for name in names)
  rows, figures = [], []
  for restart in restarts:
    label = text(restart.name) + (' <span class="mark">chosen</span>' if restart.chosen else "")
    scores = (restart.scores.get(name) for name in names)
    cells = "".join(f"<td>{'-' if x is None else format_number(x, 4)}</td>" for x in scores)
    rows.append(f'<tr><th scope="row">{label}</th>{cells}</tr>')
    if np.size(restart.picture):
      view = image(restart.picture, f"Direction of search {restart.name}")
      figures.append(f'<figure class="card"><figcaption>Search {label}</figcaption>{view}</figure>')
  sentence = (
    f"{len(restarts)} searches from different starts, ranked by numbers that need no labels; "
    "the run uses the direction of the one that is marked."
  )
  return (
    f'<h3 class="follows">Searches</h3>{lead(sentence)}<div class="card scrolls">'
    f'<table class="metrics"><thead><tr><th scope="col">Search</th>{head}</tr></thead>'
    f'<tbody>{"".join(rows)}</tbody></table></div><div class="runs">{"".join(figures)}</div>'
  )


def _words(name: str) -> str:
  """Returns the name of a variable as words."""
  return name.replace("_", " ").capitalize()


def _samples(samples: Sequence[tuple[np.ndarray, np.ndarray]]) -> str:
  if not samples:
    return empty(NO_SAMPLES)
  sentence = "What the segmenter learns from: generated pictures, each beside its mask."
  return f'{lead(sentence)}<div class="card samples">{sample_pairs(samples)}</div>'


def _filters(filters: Mapping[str, float]) -> str:
  if not filters:
    return empty(NO_FILTERS)
  rows = (
    f"<div{' class=all' if name == 'all' else ''}><dt>{text(name)}</dt>{bar(name, value)}</div>"
    for name, value in filters.items()
  )
  return f'{lead(FILTERS_LEAD)}<div class="card"><dl class="bars">{"".join(rows)}</dl></div>'


FILTERS_LEAD = "Share of the candidates that each filter accepts."


def _curves(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
  if not curves:
    return empty(NO_CURVES)
  sentence = "As logged, without smoothing; beside each name stands the last value."
  return lead(sentence) + "".join(
    f"<h3>{text(stage)}</h3>{_charts(stage, columns)}" for stage, columns in curves.items()
  )


def _charts(stage: str, columns: Mapping[str, Sequence[float]]) -> str:
  """The charts of one stage; curves of very different range do not share one."""
  curves = stage_curves(stage, columns)
  if not curves:
    return empty("Nothing was logged.")
  series = {name: i for i, name in enumerate(curves)}
  charts = (
    chart(f"{stage}: {', '.join(group)} by step", group, series) for group in share_axes(curves)
  )
  return f'<div class="charts">{"".join(charts)}</div>'


METRICS_LEAD = "Means over the pictures of each data set; 1 is perfect, 0 for MAE."


def _metrics(metrics: tables.Metrics, reference: tables.Metrics) -> str:
  if not metrics:
    return empty(tables.NO_METRICS)
  shown = [values for name in metrics for values in (metrics[name], reference.get(name, {}))]
  names = list(dict.fromkeys(name for values in shown for name in values))
  head = "".join(f'<th scope="col">{metric_label(name)}</th>' for name in names)
  rows = (
    _metrics_row(name, metrics[name], names)
    + (_metrics_row("Published", reference[name], names, "reference") if name in reference else "")
    for name in metrics
  )
  sentence = METRICS_LEAD
  if any(name in reference for name in metrics):
    sentence += " Published numbers stand below those of the run."
  return (
    f'{lead(sentence)}<div class="card scrolls"><table class="metrics">'
    f'<thead><tr><th scope="col">Data set</th>{head}</tr></thead>'
    f"<tbody>{''.join(rows)}</tbody></table></div>"
  )


def _metrics_row(
  name: str, values: Mapping[str, float], names: Sequence[str], style: str = ""
) -> str:
  cells = "".join(f"<td>{f'{values[k]:.4f}' if k in values else '-'}</td>" for k in names)
  return f'<tr class="{style}"><th scope="row">{text(name)}</th>{cells}</tr>'


def _predictions(predictions: Sequence[Prediction]) -> str:
  if not predictions:
    return empty(NO_PREDICTIONS)
  cards = (
    f'<article class="card"><h3>{text(prediction.name)}</h3>{_views(prediction)}</article>'
    for prediction in predictions
  )
  return lead("The trained segmenter on pictures.") + "".join(cards)


def _views(prediction: Prediction) -> str:
  """A picture beside its probability, cut-out and overlay."""
  figures = (
    f"<figure>{image(view, f'{name} of {prediction.name}', style)}"
    f"<figcaption>{name}</figcaption></figure>"
    for name, (view, style) in prediction_views(prediction).items()
  )
  remark = "" if np.isfinite(prediction.probability).all() else note(NOT_FINITE)
  return f'<div class="views">{"".join(figures)}</div>{remark}'


NOT_FINITE = "Its probability is not finite, so there is no mask to show."


def prediction_views(prediction: Prediction) -> dict[str, tuple[np.ndarray, str]]:
  """Returns the views of a prediction by name, each with its CSS classes, no larger than shown.

  They are the picture, its probability, cut-out and overlay; only the picture where the
  probability is not finite.

  Raises:
    ValueError: a shape, a type or a value is not as `Prediction` describes it.
  """
  picture, probability = prediction.image, np.asarray(prediction.probability, np.float32)
  if not np.isfinite(probability).all():
    return {"Picture": (shrink(picture), "picture")}
  # Checked at full size first, as shrinking would hide a wrong shape.
  pictures.cutout(picture, probability)
  picture, probability = shrink(picture), np.clip(shrink(probability), 0, 1)
  return {
    "Picture": (picture, "picture"),
    "Probability": (np.rint(probability * 255).astype(np.uint8), "picture"),
    "Cut-out": (pictures.cutout(picture, probability), "picture chequers"),
    "Overlay": (pictures.overlay(picture, probability), "picture"),
  }


def _config(config: Mapping[str, Any]) -> str:
  rows = [
    f'<tr><th scope="row">{text(key)}</th><td>{text(value)}</td></tr>'
    for key, value in workdir.flatten(config).items()
  ]
  if not rows:
    return empty("No settings were given.")
  return (
    f'<details class="card"><summary>{len(rows)} settings that made this run</summary>'
    f'<table class="config"><tbody>{"".join(rows)}</tbody></table></details>'
  )


if __name__ == "__main__":
  # The libraries' own chatter stays out of the way.
  absl_logging.set_verbosity(absl_logging.ERROR)
  # Defined here, as other commands that import this file have an --output of their own.
  flags.DEFINE_string(
    "output", None, "Page to write; if unset RUN/report.html, or comparison.html for several runs."
  )
  app.run(main)
