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

and `predictions.jsonl`, a line of JSON for each picture: its outputs, size and share of foreground,
or why it was skipped. `--outputs=mask` writes less.

`--input` is a picture, a quoted glob, or a folder. A folder stands for all folders inside it, too,
and `--output` gets the same ones: `photos/a/b.jpg` becomes `segmented/a/b_mask.png`. An `--output`
inside such an `--input` is not searched for pictures. Hidden files and folders are left out. Either
may be the URL of a bucket's folder, gs:// or s3://: pictures are then read and written one by one.

Pictures stand upright, and their colours are converted to sRGB by the profile that they bring; what
is transparent shows white. One of more than 180 million pixels is skipped; `--max_pixels` moves
this limit.

`--segmenter` may also be an ONNX file of `python -m unseg_jax.export`, which onnxruntime runs.

Many pictures: all devices work on them. Several processes (`--coordinator`, as in unseg_jax.main)
each take their share. With `--resume`, what `predictions.jsonl` says is made already, by the same
settings, is skipped, and the rest is made: a million pictures survive being stopped.

The exit status is 1 if anything was skipped or went wrong, and stderr says what; 75 if the command
was asked to leave (SIGTERM).
"""

import itertools
import logging
import os
import sys
from collections.abc import Sequence

from absl import app, flags
from absl import logging as absl_logging

from unseg_jax.images import reading
from unseg_jax.inference import refinement
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.prediction import manifest, outputs
from unseg_jax.prediction.plan import Picture, plan
from unseg_jax.prediction.run import Job, segment
from unseg_jax.runtime import parallel, preemption, process_flags, progress
from unseg_jax.runtime.barrier import barrier
from unseg_jax.storage import places
from unseg_jax.storage.file_trees import open_tree

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
OUTPUTS = flags.DEFINE_list(
  "outputs", list(outputs.KINDS), "Which of mask,cutout,overlay to write."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace what --output holds already.")
MAX_PIXELS = flags.DEFINE_integer(
  "max_pixels",
  reading.MAX_PIXELS,
  "Skip pictures of more pixels than this: decoded, they may exhaust the memory.",
  lower_bound=1,
)
RESUME = flags.DEFINE_bool("resume", False, "Skip what an earlier run with these settings made.")


def command(argv: Sequence[str]) -> int:
  """Joins the other processes of the command, if any, and runs `main`."""
  try:
    process_flags.start()
  except ValueError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  return main(argv)


def main(argv: Sequence[str]) -> int:
  """Runs the command that the flags describe; returns its exit status."""
  try:
    if argv[1:]:
      raise ValueError(
        f"unexpected arguments: {' '.join(argv[1:])}. Put quotes around a glob, as in "
        "--input='photos/*.jpg', so that the shell does not expand it."
      )
    with preemption.watch():
      return predict(
        SEGMENTER.value,
        flags.FLAGS.input,  # Marked as required, which its own value does not know.
        OUTPUT.value,
        OVERWRITE.value,
        refine=REFINE.value,
        average=AVERAGE.value,
        background=BACKGROUND.value,
        animate=ANIMATE.value,
        kinds=OUTPUTS.value,
        resume=RESUME.value,
        max_pixels=MAX_PIXELS.value,
      )
  except preemption.Preempted as stop:
    print(stop, file=sys.stderr)
    return preemption.EXIT_STATUS
  except (ImportError, OSError, ValueError) as error:
    print(places.in_urls(f"error: {error}"), file=sys.stderr)
    if parallel.process_count() > 1:
      parallel.leave_at_once(1)  # The others are on their way to a point where they would wait.
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
  kinds: Sequence[str] = outputs.KINDS,
  resume: bool = False,
  max_pixels: int = reading.MAX_PIXELS,
) -> int:
  """Segments pictures and writes a mask, a cut-out and an overlay of each, and a manifest.

  Args:
    segmenter_folder: what `Segmenter.restore` takes, such as the workdir of a run.
    pattern: the pictures, as `plan.plan` takes them.
    output: the folder to write to, or its URL, made if it is missing; gets the folders that are
      inside the one that `pattern` names. If it is inside that one itself, it is not searched for
      pictures.
    overwrite: whether to replace files that exist already.
    refine: one of `refinement.METHODS`, for the masks.
    average: whether to average over several views of each picture; see `Segmenter.views`.
    background: a colour that `PIL.ImageColor` knows, or else a picture, to write a composite on.
    animate: whether to write an animation, too.
    kinds: which of `outputs.KINDS` to write.
    resume: whether to skip what the manifest says was made with the same settings, and to replace
      all other files.
    max_pixels: pictures of more pixels than this are skipped, before they are decoded.

  Returns:
    The exit status: 0, or 1 if a picture was skipped, as it cannot be read or its outputs exist
    already. Each such picture is named on stderr.

  Raises:
    FileNotFoundError: no pictures match, or there is no segmenter.
    ImportError: what the refinement or a URL needs is not installed.
    ValueError: two pictures have the same folder and stem, an output would replace a picture or
      become one of the next run's, a refinement or an output is unknown, or `background` is
      neither.
    OSError: a folder cannot be searched, or the outputs cannot be written.
    preemption.Preempted: the command was asked to leave; what was made is in the manifest.
  """
  tree = open_tree(output)
  refinement.check_method(refine)
  background_read = None if background is None else outputs.read_background(background, max_pixels)
  encoders = outputs.encoders(kinds, background_read, animate)
  pictures = plan(pattern, tree, encoders)
  segmenter = Segmenter.restore(os.path.expanduser(segmenter_folder))
  settings = f"segmenter={segmenter_folder} refine={refine} average={average}"
  if background is not None:
    settings += f" background={background}"
  job = Job(segmenter, encoders, tree, refine, average, max_pixels)
  known = manifest.read(tree)
  barrier("the manifest is read")
  if parallel.is_primary():
    manifest.fold(tree)
  barrier("the manifest is in order")
  own = [pictures[index] for index in parallel.own_indices(len(pictures))]
  wanted = {picture: [picture.target + ending for ending in encoders] for picture in own}
  existing = set()
  if resume or not overwrite:
    existing = tree.existing({name for names in wanted.values() for name in names})
  todo, made, refused = [], 0, []
  for picture, names in wanted.items():
    kept = [name for name in names if name in existing]
    if resume and kept == names and known.get(picture.source, {}).get("made by") == settings:
      made += 1
    elif kept and not (overwrite or resume):
      outputs_there = ", ".join(map(tree.where, kept))
      refused.append(
        f"{picture.source}, as there is already {outputs_there}; --overwrite replaces what is "
        "there, and --resume goes on with a run that was stopped."
      )
    else:
      todo.append(picture)
  part = manifest.Part.begin(tree, parallel.process_index())
  try:
    done, skipped = _segment(job, todo, made, refused, settings, part)
  finally:
    part.close()
  # All processes wait for each other, and leave together.
  if parallel.gather([done < len(own)]).any():
    preemption.leave(f"{done} of {len(own)} pictures are done, and --resume skips them")
  if parallel.is_primary():
    manifest.fold(tree)
  print(f"{len(own) - skipped} of {len(own)} pictures segmented into {output}")
  return 1 if skipped else 0


def _segment(
  job: Job,
  pictures: Sequence[Picture],
  made: int,
  refused: Sequence[str],
  settings: str,
  part: manifest.Part,
) -> tuple[int, int]:
  """Segments the pictures; returns how many are done, and were skipped: each named on stderr."""
  done, skipped = made + len(refused), len(refused)
  total = done + len(pictures)
  with progress.bar("predict", total, done, unit="picture") as bar:
    for problem in refused:
      bar.write(f"skipped: {problem}", file=sys.stderr)
    # Asked to leave, it takes no more pictures, and those under way are written.
    wanted = itertools.takewhile(lambda _: not preemption.requested(), pictures)
    for row in segment(job, wanted, total):
      if "skipped" in row:
        skipped += 1
        bar.write(f"skipped: {row['skipped']}", file=sys.stderr)
        part.add(row)
      else:
        part.add(row | {"made by": settings})
      done += 1
      bar.update()
  return done, skipped


if __name__ == "__main__":
  flags.mark_flag_as_required("input")
  # The libraries' own chatter stays out of the way; this package's few lines are shown.
  absl_logging.set_verbosity(absl_logging.ERROR)
  logging.getLogger("unseg_jax").setLevel(logging.WARNING)
  app.run(command)
