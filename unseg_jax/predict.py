r"""Segments your own pictures.

    python -m unseg_jax.predict --segmenter=runs/NAME --input='photos/*.jpg' --output=segmented

writes, for each picture NAME, at its full resolution:

    NAME_mask.png       white where the probability of foreground exceeds 0.5, black elsewhere
    NAME_cutout.png     the foreground; the probability is the opacity
    NAME_overlay.png    the picture with its background darkened and the mask outlined

and, if asked:

    NAME_composite.png  with --background=COLOUR or --background=FILE: the foreground on a plain
                        colour (white, '#2060a0') or on another picture, which is resized to cover
                        this one and cropped to its centre
    NAME_animated.webp  with --animate: the light leaving the background and coming back, the mask
                        beside it; each at most 512 pixels a side

`--input` is a picture, a quoted glob, or a folder. A folder stands for all folders inside it, too,
and `--output` gets the same ones: `photos/a/b.jpg` becomes `segmented/a/b_mask.png`. An `--output`
inside such an `--input` is not searched for pictures. Hidden files and folders are left out.

`--segmenter` may also be an ONNX file of `python -m unseg_jax.export`, which onnxruntime runs.

The exit status is 1 if anything was skipped or went wrong, and stderr says what.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import app, flags
from absl import logging as absl_logging
from PIL import ImageColor

from unseg_jax.reporting.pictures import composite, cutout, fading_frames, overlay
from unseg_jax.runtime import picture_files, pictures, places, progress, workdir
from unseg_jax.segmentation import refinement
from unseg_jax.segmentation.segmenter import Segmenter

SEGMENTER = flags.DEFINE_string(
  "segmenter", "pretrained:faces", "Workdir of a run, a segmenter's file, or pretrained:NAME."
)
INPUT = flags.DEFINE_string(
  "input", None, "A picture, a folder (and all folders inside), or a quoted glob."
)
OUTPUT = flags.DEFINE_string("output", "segmented", "Folder to write to, made if it is missing.")
BACKGROUND = flags.DEFINE_string(
  "background", None, "Also put the foreground on this: a colour (white, #2060a0) or a picture."
)
ANIMATE = flags.DEFINE_bool("animate", False, "Also write an animation of the background's light.")
REFINE = flags.DEFINE_string(
  "refine", "none", "Or 'guided' or 'grabcut': fit the masks to the pictures' edges, by OpenCV."
)
AVERAGE = flags.DEFINE_bool(
  "average", False, "Average over the mirrored picture and three scales: better, six times as slow."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace what --output holds already.")

SECONDS_PER_FRAME = 0.06

# What to encode of a picture, uint8 [H, W, 3], and its probability, float32 [H, W].
Encode = Callable[[np.ndarray, np.ndarray], bytes]


def main(argv: Sequence[str]) -> int:
  """Runs the command that the flags describe; returns its exit status."""
  try:
    if argv[1:]:
      raise ValueError(
        f"unexpected arguments: {' '.join(argv[1:])}. Put quotes around a glob, as in "
        "--input='photos/*.jpg', so that the shell does not expand it."
      )
    return predict(
      SEGMENTER.value,
      INPUT.value,
      OUTPUT.value,
      OVERWRITE.value,
      refine=REFINE.value,
      average=AVERAGE.value,
      background=BACKGROUND.value,
      animate=ANIMATE.value,
    )
  except (ImportError, OSError, ValueError) as error:
    print(places.in_urls(f"error: {error}"), file=sys.stderr)
    return 1


def predict(
  segmenter_folder: str,
  pattern: str,
  output: str,
  overwrite: bool,
  refine: str = "none",
  average: bool = False,
  background: str | None = None,
  animate: bool = False,
) -> int:
  """Segments pictures and writes a mask, a cut-out and an overlay of each.

  Args:
    segmenter_folder: what `Segmenter.restore` takes, such as the workdir of a run.
    pattern: the pictures, as in `picture_files.find_pictures`, folders inside a folder included; or
      the URL of a picture or a folder.
    output: the folder to write to, or its URL, made if it is missing; gets the folders that are
      inside the one that `pattern` names. If it is inside that one itself, it is not searched for
      pictures.
    overwrite: whether to replace files that are there already.
    refine: one of `refinement.METHODS`, for the masks.
    average: whether to average over several views of each picture; see `Segmenter.views`.
    background: a colour that `PIL.ImageColor` knows, or else a picture, to write a composite on.
    animate: whether to write an animation, too.

  Returns:
    The exit status: 0, or 1 if a picture was skipped, as it cannot be read or its outputs are
    there already. Each such picture is named on stderr.

  Raises:
    FileNotFoundError: there are no pictures, or there is no segmenter.
    ImportError: what the refinement needs is not installed.
    ValueError: two pictures have the same folder and stem, an output would replace a picture or
      become one of the next run's, there is no such refinement, or `background` is neither.
    OSError: a folder cannot be searched, or the outputs cannot be written.
  """
  segmenter_folder = os.path.expanduser(segmenter_folder)
  output = places.local(os.path.expanduser(output))
  pattern = str(places.local(pattern)) if places.is_url(pattern) else pattern
  if output.exists() and not output.is_dir():
    raise NotADirectoryError(f"--output={output} is a file; expected a folder, or a new name.")
  refinement.check_method(refine)
  encoders = _encoders(None if background is None else _background(background), animate)
  plan = _plan(_targets(pattern, output), encoders)
  segmenter = Segmenter.restore(segmenter_folder)
  output.mkdir(parents=True, exist_ok=True)
  skipped = 0
  with progress.bar("predict", len(plan), unit="picture") as bar:
    for picture, outputs in plan.items():
      problem = _segment(segmenter, picture, outputs, overwrite, refine, average)
      if problem:
        skipped += 1
        bar.write(f"skipped: {problem}", file=sys.stderr)
      bar.update()
  where = places.in_urls(str(output))
  print(f"{len(plan) - skipped} of {len(plan)} pictures segmented into {where}")
  return 1 if skipped else 0


def _background(value: str) -> tuple[int, int, int] | np.ndarray:
  """Returns the colour or the picture that --background means, or says why it is neither."""
  try:
    colour = ImageColor.getrgb(value)
  except ValueError:
    colour = ()
  # A fourth number is an opacity; and "rgb(300, 0, 0)" passes unclipped.
  if len(colour) == 3 and max(colour) <= 255:
    return colour
  path = Path(os.path.expanduser(value))
  reason = "there is no such file"
  if path.is_file():
    try:
      return picture_files.read_picture(path)
    except ValueError as error:
      reason = str(error)
  raise ValueError(
    f"--background={value} is neither a colour nor a picture: {reason.rstrip('.')}. Give a name "
    "such as white, a colour such as '#2060a0', or the path of a picture."
  )


def _encoders(
  background: tuple[int, int, int] | np.ndarray | None, animate: bool
) -> dict[str, Encode]:
  """Returns what to write for each picture, by the ending of the file's name."""
  encoders: dict[str, Encode] = {
    "_mask.png": lambda image, probability: pictures.png_bytes(probability > 0.5),
    "_cutout.png": lambda *pair: pictures.png_bytes(cutout(*pair)),
    "_overlay.png": lambda *pair: pictures.png_bytes(overlay(*pair)),
  }
  if background is not None:
    encoders["_composite.png"] = lambda *pair: pictures.png_bytes(composite(*pair, background))
  if animate:
    encoders["_animated.webp"] = lambda *pair: pictures.animation_bytes(
      pictures.there_and_back(fading_frames(*pair)), SECONDS_PER_FRAME
    )
  return encoders


def _targets(pattern: str, output: Path) -> dict[Path, Path]:
  """Returns the pictures, and for each where its outputs go, up to the ending of their names."""
  found = picture_files.find_pictures(pattern, subfolders=True)
  root = Path(os.path.expanduser(pattern))
  if not root.is_dir():
    return {picture: output / picture.stem for picture in found}
  # Outputs must not be among the pictures of the next run: it would segment the masks of this one.
  is_inside = output.resolve() != root.resolve() and _is_inside(output, root)
  kept = _without_outputs(found, output, root) if is_inside else found
  targets = {picture: output / picture.parent.relative_to(root) / picture.stem for picture in kept}
  for picture, target in targets.items():
    if not is_inside and _is_inside(target.parent, root):
      raise ValueError(
        f"the outputs of {picture} would go to {target.parent}, where the next run would take them "
        f"for pictures; use an --output such as {root / 'segmented'}, which is not searched."
      )
  return targets


def _without_outputs(found: Sequence[Path], output: Path, root: Path) -> Sequence[Path]:
  """Leaves out the pictures in `output`, and says so."""
  kept = [picture for picture in found if not _is_inside(picture.parent, output)]
  left_out = f"{len(found) - len(kept)} pictures in --output={output}, which is not searched"
  if not kept:
    raise FileNotFoundError(
      f"the folder {root} has no pictures but {left_out}; use another --output, or give that "
      "folder as --input."
    )
  if len(kept) < len(found):
    print(f"left out: {left_out}", file=sys.stderr)
  return kept


def _is_inside(path: Path, outer: Path) -> bool:
  """Whether a path is a folder or anywhere inside it, wherever links lead."""
  return path.resolve().is_relative_to(outer.resolve())


def _plan(
  targets: Mapping[Path, Path], encoders: Mapping[str, Encode]
) -> dict[Path, dict[Path, Encode]]:
  """Returns which files to write for each picture, or says why they must not be written."""
  plan, by_target = {}, {}
  for picture, target in targets.items():
    other = by_target.setdefault(target, picture)
    if other is not picture:
      same_folder = other.parent == picture.parent
      remedy = "rename one of them" if same_folder else "give the folder above both as --input"
      raise ValueError(
        f"{other} and {picture} would both be written to {target}_*; {remedy}, or segment them one "
        "at a time into different --output folders."
      )
    plan[picture] = {Path(f"{target}{ending}"): encode for ending, encode in encoders.items()}
  originals = {picture.resolve(): picture for picture in plan}
  for picture, outputs in plan.items():
    for path in outputs:
      if path.resolve() in originals:
        raise ValueError(
          f"an output of {picture} would replace the input {originals[path.resolve()]}; use an "
          "--output folder other than that of the pictures."
        )
  return plan


def _segment(
  segmenter: Callable[[np.ndarray], np.ndarray],
  picture: Path,
  outputs: Mapping[Path, Encode],
  overwrite: bool,
  refine: str,
  average: bool,
) -> str | None:
  """Segments one picture; returns why it was skipped, if it was."""
  there = [path for path in outputs if path.exists()]
  if there and not overwrite:
    names = ", ".join(map(str, there))
    return f"{picture}, as there is already {names}; --overwrite replaces what is there."
  try:
    image = picture_files.read_picture(picture)
  except ValueError as error:
    return str(error)
  probability = refinement.refine(segmenter(image, average), image, refine)
  for path, encode in outputs.items():
    workdir.write_bytes(path, encode(image, probability))
  return None


if __name__ == "__main__":
  flags.mark_flag_as_required("input")
  # The libraries' own chatter stays out of the way.
  absl_logging.set_verbosity(absl_logging.ERROR)
  app.run(main)
