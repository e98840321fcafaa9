r"""Segments your own pictures.

  python -m unseg_jax.predict --segmenter=runs/NAME --input='photos/*.jpg' --output=segmented

writes, for each picture NAME, at its full resolution:
  NAME_mask.png     white where the probability of foreground exceeds 0.5, black elsewhere
  NAME_cutout.png   the foreground; the probability is the opacity
  NAME_overlay.png  the picture with its background darkened and the mask outlined

The exit status is 1 if anything was skipped or went wrong, and stderr says what.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from absl import app, flags

from unseg_jax import pictures, progress, refinement, workdir
from unseg_jax.data import folder
from unseg_jax.segmenter import Segmenter

SEGMENTER = flags.DEFINE_string("segmenter", None, "Workdir of a run, or a converted U-Net.")
INPUT = flags.DEFINE_string("input", None, "A picture, a folder of pictures, or a quoted glob.")
OUTPUT = flags.DEFINE_string("output", None, "Folder to write to, made if it is missing.")
REFINE = flags.DEFINE_string(
  "refine", "none", "Or 'guided': fit the masks to the pictures' edges, by OpenCV."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace what --output holds already.")

KINDS = ("mask", "cutout", "overlay")


def main(argv: Sequence[str]) -> int:
  """Runs the command that the flags describe; returns its exit status."""
  try:
    if argv[1:]:
      raise ValueError(
        f"unexpected arguments: {' '.join(argv[1:])}. Put quotes around a glob, as in "
        "--input='photos/*.jpg', so that the shell does not expand it."
      )
    return predict(SEGMENTER.value, INPUT.value, OUTPUT.value, OVERWRITE.value, refine=REFINE.value)
  except (ImportError, OSError, ValueError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 1


def predict(
  segmenter_folder: str, pattern: str, output: str, overwrite: bool, refine: str = "none"
) -> int:
  """Segments pictures and writes a mask, a cut-out and an overlay of each.

  Args:
    segmenter_folder: the workdir of the run that trained the segmenter, or a converted U-Net.
    pattern: the pictures, as in `folder.find_pictures`.
    output: the folder to write to, made if it is missing.
    overwrite: whether to replace files that are there already.
    refine: one of `refinement.METHODS`, for the masks.

  Returns:
    The exit status: 0, or 1 if a picture was skipped, as it cannot be read or its outputs are
    there already. Each such picture is named on stderr.

  Raises:
    FileNotFoundError: there are no pictures, or there is no segmenter.
    ImportError: what the refinement needs is not installed.
    ValueError: two pictures have the same stem, an output would replace a picture, or there is no
      such refinement.
    OSError: the outputs cannot be written.
  """
  segmenter_folder, output = (Path(os.path.expanduser(path)) for path in (segmenter_folder, output))
  if output.exists() and not output.is_dir():
    raise NotADirectoryError(f"--output={output} is a file; expected a folder, or a new name.")
  refinement.check_method(refine)
  found = folder.find_pictures(pattern)
  plan = _plan(found, output)
  segmenter = Segmenter.restore(segmenter_folder)
  output.mkdir(parents=True, exist_ok=True)
  skipped = 0
  with progress.bar("predict", len(found), unit="picture") as bar:
    for picture, outputs in plan.items():
      problem = _segment(segmenter, picture, outputs, overwrite, refine)
      if problem:
        skipped += 1
        bar.write(f"skipped: {problem}", file=sys.stderr)
      bar.update()
  print(f"{len(found) - skipped} of {len(found)} pictures segmented into {output}")
  return 1 if skipped else 0


def _plan(found: Sequence[Path], output: Path) -> dict[Path, list[Path]]:
  """Returns where each picture's outputs go, or says why they must not go there."""
  plan, by_stem = {}, {}
  for picture in found:
    other = by_stem.setdefault(picture.stem, picture)
    if other is not picture:
      raise ValueError(
        f"{other} and {picture} would both be written to {output / picture.stem}_*.png; rename "
        "one of them, or segment them one at a time into different --output folders."
      )
    plan[picture] = [output / f"{picture.stem}_{kind}.png" for kind in KINDS]
  originals = {picture.resolve(): picture for picture in found}
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
  outputs: Sequence[Path],
  overwrite: bool,
  refine: str,
) -> str | None:
  """Segments one picture; returns why it was skipped, if it was."""
  there = [path for path in outputs if path.exists()]
  if there and not overwrite:
    names = ", ".join(map(str, there))
    return f"{picture}, as there is already {names}; --overwrite replaces what is there."
  try:
    image = folder.read_picture(picture)
  except ValueError as error:
    return str(error)
  probability = refinement.refine(segmenter(image), image, refine)
  arrays = (
    probability > 0.5,
    pictures.cutout(image, probability),
    pictures.overlay(image, probability),
  )
  for path, array in zip(outputs, arrays, strict=True):
    with workdir.whole_file(path) as temporary:
      temporary.write_bytes(pictures.png_bytes(array))
  return None


if __name__ == "__main__":
  flags.mark_flags_as_required(["segmenter", "input", "output"])
  app.run(main)
