"""The page: three tabs, what is in them, and what follows on what.

Nothing of one visitor's is kept where another one's calls could meet it: a picture is in that
visitor's `gr.State`, shrunk to what is shown, and this is embedded in the page. Its upload, which
only that page knows the name of, is read again for whatever needs all of its pixels.
"""

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import gradio as gr
import numpy as np
from gradio.utils import get_upload_folder

from unseg_jax.array_types import UInt8
from unseg_jax.demo import direction, html, limits, memory, picture, runs, search_history
from unseg_jax.images.drawing import shrink
from unseg_jax.inference import refinement
from unseg_jax.prediction import outputs
from unseg_jax.reporting.contents import find_pictures

KEEP_SECONDS = 600  # Of files: what was uploaded, and what was made for a download.
KEEP_STATE_SECONDS = 3600  # Of pictures in memory, where a visitor's leaving is not noticed.
WAITING = 100  # Calls in the queue; one more call is refused, and its visitor asked to come again.
EXAMPLE = "example:astronaut_head.png"
LAST_SEED = 2**31 - 1
HINT = html.hint("Drop a picture, paste one, or try the example.")
NOTHING_YET = "There is no picture yet: drop one, or try the example."
MESSAGE_SECONDS = 30.0
Source = Literal["upload", "clipboard", "webcam"]
REFUSED = (ImportError, OSError, ValueError)
# What follows a slider at once: nothing veils the picture, and of many moves the last one counts.
AT_ONCE: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}


def build(folder: Path) -> gr.Blocks:
  """Lays out the page; it is not served yet.

  Args:
    folder: of runs to choose from; it is looked at whenever the page is opened.
  """
  with gr.Blocks(
    title="unseg-jax", analytics_enabled=False, delete_cache=(60, KEEP_SECONDS)
  ) as page:
    gr.Markdown(
      "# unseg-jax\nForegrounds without labels: a pretrained generator, a direction in its latent "
      "space, and the segmenter that learns from them."
    )
    with gr.Tab("Your picture"):
      _picture_tab(page, folder)
    with gr.Tab("The direction") as tab:
      _direction_tab(page, tab, folder)
    with gr.Tab("How it was found") as tab:
      _search_tab(page, tab, folder)

    def forget(visitor: gr.Request) -> None:
      # Gradio would hold on to a page that was closed, what it showed included.
      page.state_holder.session_data.pop(visitor.session_hash, None)
      memory.return_freed()

    page.unload(forget)
  return page.queue(default_concurrency_limit=1, max_size=WAITING)


def _picture_tab(page: gr.Blocks, folder: Path) -> None:
  segmented, behind = gr.State(time_to_live=KEEP_STATE_SECONDS), gr.State()
  lowest, highest = picture.THRESHOLDS
  with gr.Row():
    with gr.Column():
      upload = _upload("Picture", "picture", ["upload", "clipboard", "webcam"], height=300)
      example = gr.Button("Try the example", elem_id="example")
    with gr.Column():
      choice = _chooser("Segmenter", "segmenter", runs.segmenters(folder))
      threshold = gr.Slider(
        minimum=lowest,
        maximum=highest,
        value=0.5,
        step=0.01,
        label="Threshold",
        elem_id="threshold",
      )
      average = gr.Checkbox(
        label="Average over the mirrored picture and three scales", elem_id="average"
      )
      refine = gr.Radio(
        refinement.METHODS, value="none", label="Fit to the picture's edges", elem_id="refine"
      )
  shown = gr.HTML(HINT, elem_id="views")
  with gr.Row():
    with gr.Column():
      colour = gr.ColorPicker("#2060a0", label="Composite on this colour", elem_id="colour")
      other = _upload("or on this picture", "other", ["upload", "clipboard"], height=160)
    with gr.Column():
      make = gr.Button("Make files at full resolution", elem_id="make")
      files = gr.Files(label="Files", elem_id="files", interactive=False, height=220)

  settings = [choice, average, refine]
  drawn_by = [segmented, threshold, colour, behind]
  results = [segmented, shown]
  everything = [upload, *settings, threshold, colour, behind]
  # Uploads, pastes, the camera's pictures and the example change it, and so does taking it away.
  upload.change(_segment, everything, results, api_name="segment").failure(
    lambda: (None, HINT, None), outputs=[*results, upload], api_visibility="private"
  )
  example.click(_example, outputs=upload, api_visibility="private")
  for chosen in (choice.input, average.input, refine.input):
    chosen(_segment, everything, results, api_visibility="private")
  for moved in (threshold.input, colour.input):
    moved(_draw, drawn_by, shown, api_visibility="private", **AT_ONCE)
  opened = other.change(_open_background, other, behind, api_visibility="private")
  opened.success(_draw, drawn_by, shown, api_visibility="private")
  opened.failure(lambda: (None, None), outputs=[behind, other], api_visibility="private")
  make.click(
    _make_files,
    [upload, threshold, colour, other, *settings],
    files,
    api_visibility="private",
  )
  _refresh(page, choice, lambda: runs.segmenters(folder))


def _upload(label: str, name: str, sources: list[Source], height: int) -> gr.Image:
  image = gr.Image(
    type="filepath", label=label, elem_id=name, sources=sources, height=height, buttons=[]
  )
  # Gradio's own way decodes whatever comes, before anybody can refuse it, and leaves users its
  # library's words. That the file is an upload it has checked by then. No event may return an
  # update such as `gr.skip()` for this component, as Gradio would make it anew, the old way.
  vars(image)["preprocess"] = lambda payload: payload.path if payload else None
  return image


def _chooser(label: str, name: str, choices: Sequence[str]) -> gr.Dropdown:
  value = choices[0] if choices else None
  return gr.Dropdown(_named(choices), value=value, label=label, elem_id=name, filterable=False)


def _named(choices: Sequence[str]) -> list[tuple[str, str]]:
  return [(runs.label(choice), choice) for choice in choices]


def _refresh(page: gr.Blocks, chooser: gr.Dropdown, look: Callable[[], Sequence[str]]) -> None:
  """Lets a chooser offer the present choices whenever the page is opened: runs come and go."""

  def choices() -> gr.Dropdown:
    offered = look()
    return gr.Dropdown(_named(offered), value=offered[0] if offered else None)

  page.load(choices, outputs=chooser, api_visibility="private", show_progress="hidden")


def _example() -> str:
  (path,) = find_pictures([EXAMPLE])
  return str(path)


@contextlib.contextmanager
def _telling() -> Iterator[None]:
  """Tells the visitor why something is refused; whatever else goes wrong is the server's own."""
  try:
    yield
  except REFUSED as error:
    raise gr.Error(str(error), duration=MESSAGE_SECONDS, print_exception=False) from error


def _segment(
  path: str | None,
  choice: str,
  average: bool,
  refine: str,
  threshold: float,
  colour: str,
  behind: UInt8[np.ndarray, "_ _ 3"] | None,
) -> tuple[picture.Segmented | None, str]:
  """Returns what is held of a picture, and what is shown."""
  if path is None:
    return None, HINT
  with _telling():
    segmented = picture.small(picture.segment(path, choice, average, refine))
    return segmented, _draw(segmented, threshold, colour, behind)


def _draw(
  segmented: picture.Segmented | None,
  threshold: float,
  colour: str,
  behind: UInt8[np.ndarray, "_ _ 3"] | None,
) -> str:
  if segmented is None:
    return HINT
  return html.views(*picture.views(segmented, threshold, _background(colour, behind)))


def _background(colour: str, behind: np.ndarray | None) -> outputs.Background:
  return picture.colour(colour) if behind is None else behind


def _open_background(path: str | None) -> np.ndarray | None:
  """Returns what is held of a background."""
  with _telling():
    return None if path is None else shrink(limits.read_upload(path))


def _make_files(
  path: str | None, threshold: float, colour: str, other: str | None, *how: Any
) -> list[str]:
  """Returns the files' paths; `how` to segment is as for `picture.segment`."""
  if path is None:
    raise gr.Error(NOTHING_YET, duration=MESSAGE_SECONDS, print_exception=False)
  # Gradio serves what is in its folder; nobody can guess the name of this one.
  folder = Path(get_upload_folder(), secrets.token_hex(16))
  with _telling():
    background = _background(colour, None if other is None else limits.read_upload(other))
    segmented = picture.segment(path, *how)
    folder.mkdir(parents=True)
    return picture.write_files(segmented, threshold, background, folder)


def _direction_tab(page: gr.Blocks, tab: gr.Tab, folder: Path) -> None:
  with gr.Row():
    run = _chooser("Run", "run", runs.searches(folder))
    seed = gr.Number(
      0, label="Seed of the latents", precision=0, minimum=0, maximum=LAST_SEED, elem_id="seed"
    )
  shift = gr.Slider(0, direction.LONGEST_SHIFT, value=5.0, step=0.1, label="Shift", elem_id="shift")
  shown = gr.HTML(elem_id="latents")

  def explore(run: str | None, seed: int | None, shift: float) -> str:
    if run is None:
      return html.no_search(str(folder))
    if seed is None:
      return html.message(f"the seed is empty: expected a whole number from 0 to {LAST_SEED:,}")
    try:
      search = direction.open_search(Path(run))
      drawn = direction.explore(search, search.directions, seed, shift)
    except REFUSED as error:
      return html.message(str(error))
    return html.direction(search, drawn, shift)

  inputs = [run, seed, shift]
  shift.input(explore, inputs, shown, api_name="explore", **AT_ONCE)
  for event in (run.input, seed.input, tab.select):
    event(explore, inputs, shown, api_visibility="private")
  _refresh(page, run, lambda: runs.searches(folder))


def _search_tab(page: gr.Blocks, tab: gr.Tab, folder: Path) -> None:
  run = _chooser("Run", "searched", runs.searches(folder))
  shown = gr.HTML(elem_id="search")

  def look(run: str | None) -> str:
    if run is None:
      return html.no_search(str(folder))
    try:
      search = direction.open_search(Path(run))
      return html.search_history(
        search, search_history.curves(search.workdir), search_history.snapshots(search, seed=0)
      )
    except REFUSED as error:
      return html.message(str(error))

  for event in (run.input, tab.select):
    event(look, run, shown, api_visibility="private")
  _refresh(page, run, lambda: runs.searches(folder))
