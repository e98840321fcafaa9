"""The layout of the three tabs, and their events.

Visitors cannot see each other's images. Each visitor's shrunk image is in that visitor's
`gr.State`, and the page embeds the views. Steps that need all pixels read the upload again; only
the visitor's own page knows its file name.
"""

import contextlib
import secrets
import shutil
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

KEEP_SECONDS = 600  # For files: uploads, and masks and cut-outs to download.
KEEP_STATE_SECONDS = 3600  # For images in memory, if the server misses that a visitor left.
WAITING = 100  # Calls in the queue. Further calls are refused.
EXAMPLE = "example:astronaut_head.png"
LAST_SEED = 2**31 - 1
HINT = html.hint("Drop an image, paste one, or try the example.")
NOTHING_YET = "No image to segment: drop one, or try the example."
MESSAGE_SECONDS = 30.0
Source = Literal["upload", "clipboard", "webcam"]
REFUSED = (ImportError, OSError, ValueError)
# For sliders: no progress indicator hides the image, and only the last of many moves counts.
AT_ONCE: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last"}


def build(folder: Path) -> gr.Blocks:
  """Builds the page without serving it.

  Args:
    folder: of runs; it is listed again whenever the page is opened.
  """
  with gr.Blocks(
    title="unseg-jax", analytics_enabled=False, delete_cache=(60, KEEP_SECONDS)
  ) as page:
    gr.Markdown(
      "# unseg-jax\nForeground segmentation without labels: a pretrained generator, a direction in "
      "its latent space, and a segmenter trained on the resulting pairs of image and mask."
    )
    with gr.Tab("Your image"):
      _picture_tab(page, folder)
    with gr.Tab("The direction") as tab:
      _direction_tab(page, tab, folder)
    with gr.Tab("How it was found") as tab:
      _search_tab(page, tab, folder)

    def forget(visitor: gr.Request) -> None:
      # Gradio would keep the state of a closed page, its images included.
      page.state_holder.session_data.pop(visitor.session_hash, None)
      memory.return_freed()

    page.unload(forget)
  return page.queue(default_concurrency_limit=1, max_size=WAITING)


def _picture_tab(page: gr.Blocks, folder: Path) -> None:
  segmented, behind = gr.State(time_to_live=KEEP_STATE_SECONDS), gr.State()
  lowest, highest = picture.THRESHOLDS
  with gr.Row():
    with gr.Column():
      upload = _upload("Image", "picture", ["upload", "clipboard", "webcam"], height=300)
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
        label="Average over the mirrored image and three scales", elem_id="average"
      )
      refine = gr.Radio(
        refinement.METHODS, value="none", label="Fit the mask to image edges", elem_id="refine"
      )
  shown = gr.HTML(HINT, elem_id="views")
  with gr.Row():
    with gr.Column():
      colour = gr.ColorPicker(
        "#2060a0", label="Background colour of the composite", elem_id="colour"
      )
      other = _upload(
        "Background image of the composite", "other", ["upload", "clipboard"], height=160
      )
    with gr.Column():
      make = gr.Button("Create files at full resolution", elem_id="make")
      files = gr.Files(label="Files", elem_id="files", interactive=False, height=220)

  settings = [choice, average, refine]
  drawn_by = [segmented, threshold, colour, behind]
  results = [segmented, shown]
  everything = [upload, *settings, threshold, colour, behind]
  # Triggered by an upload, a paste, the camera, the example, and by removing the image.
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
  # Gradio's own preprocessing decodes every file before a limit can refuse it, and shows errors of
  # its libraries. Gradio has already checked that the file is an upload. No event may return an
  # update such as `gr.skip()` for this component: Gradio would rebuild it with its own function.
  vars(image)["preprocess"] = lambda payload: payload.path if payload else None
  return image


def _chooser(label: str, name: str, choices: Sequence[str]) -> gr.Dropdown:
  value = choices[0] if choices else None
  return gr.Dropdown(_named(choices), value=value, label=label, elem_id=name, filterable=False)


def _named(choices: Sequence[str]) -> list[tuple[str, str]]:
  return [(runs.label(choice), choice) for choice in choices]


def _refresh(page: gr.Blocks, chooser: gr.Dropdown, look: Callable[[], Sequence[str]]) -> None:
  """Lists the choices again whenever the page is opened."""

  def choices() -> gr.Dropdown:
    offered = look()
    return gr.Dropdown(_named(offered), value=offered[0] if offered else None)

  page.load(choices, outputs=chooser, api_visibility="private", show_progress="hidden")


def _example() -> str:
  (path,) = find_pictures([EXAMPLE])
  return shutil.copy(str(path), str(_new_folder()))


def _new_folder() -> Path:
  """Makes a folder from which Gradio serves files. Its name cannot be guessed."""
  folder = Path(get_upload_folder(), secrets.token_hex(16))
  folder.mkdir(parents=True)
  return folder


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
  """Shows refusals to the visitor. Other errors are the server's and stay in its log."""
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
  """Returns the shrunk image to keep, and the HTML to show."""
  if path is None:
    return None, HINT
  with _refusals():
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
  """Returns the shrunk background image to keep."""
  with _refusals():
    return None if path is None else shrink(limits.read_upload(path))


def _make_files(
  path: str | None, threshold: float, colour: str, other: str | None, *how: Any
) -> list[str]:
  """Returns the paths of the files; `how` holds further arguments of `picture.segment`."""
  if path is None:
    raise gr.Error(NOTHING_YET, duration=MESSAGE_SECONDS, print_exception=False)
  with _refusals():
    background = _background(colour, None if other is None else limits.read_upload(other))
    segmented = picture.segment(path, *how)
    return picture.write_files(segmented, threshold, background, _new_folder())


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
      return html.message(f"the seed is empty: expected an integer from 0 to {LAST_SEED:,}")
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
