r"""Segments your own pictures.

    python -m unseg_jax.predict --segmenter=runs/NAME --input='photos/*.jpg' --output=segmented

For each picture NAME, it writes at full resolution:

    NAME_mask.png       white where the probability of foreground exceeds 0.5, black elsewhere
    NAME_cutout.png     the foreground, with the probability as opacity
    NAME_overlay.png    the picture with its background darkened and the mask outlined

Optional outputs:

    NAME_composite.png  with --background=COLOUR or --background=FILE: the foreground on a plain
                        colour (white, '#2060a0') or on another picture, which is resized and
                        cropped to fill this one
    NAME_animated.webp  with --animate: the background fades out and in again, beside the mask;
                        each at most 512 pixels a side

It also writes `predictions.jsonl`, with one line of JSON per picture: its outputs, size, share of
foreground and the identity of its inputs, or the reason for skipping it. `--outputs=mask` writes
masks only. If two pictures would share a NAME, such as a.jpg and a.png, NAME includes the suffix.

`--input` is a picture, a quoted glob or a folder. A folder is searched with its subfolders, which
`--output` reproduces: `photos/a/b.jpg` becomes `segmented/a/b_mask.png`. An `--output` inside
`--input` is not searched. Hidden files and folders are ignored. Either may be the URL of a bucket's
folder, gs:// or s3://; pictures are then read and written one by one.

One bad picture does not end the command. A picture that is unreadable, a broken link, a name too
long for its outputs, or a picture too large for memory gives a line on stderr and a row of
`predictions.jsonl`. A batch has at most 2 million pixels on each device. A process holds at most 67
million decoded pixels at a time, or a single larger picture. Extremely long pictures are segmented
in pieces.

Pictures are rotated upright and converted to sRGB from their embedded profiles; transparency
becomes white. Pictures of more than 180 million pixels are skipped; `--max_pixels` changes this
limit.

`--segmenter` may also be an ONNX file of `python -m unseg_jax.export`, which onnxruntime runs.

Many pictures: all devices share the work, and `--workers` processes read and encode. Several
processes (`--coordinator`, as in unseg_jax.main) split the pictures between them. With `--resume`,
pictures are skipped if `predictions.jsonl` lists them as made by the same segmenter and settings,
so an interrupted run continues. A picture is identified by its SHA-256 or its bucket's tag, and a
segmenter by its weights; names do not matter.

The exit status is 0 on success; 1 if a picture was skipped or an error occurred, which stderr
describes; and 75 if a signal stopped the command (SIGTERM, Ctrl-C, a closed terminal).
"""

import itertools
import logging
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from absl import flags
from absl import logging as absl_logging

from unseg_jax.images import reading
from unseg_jax.prediction import outputs
from unseg_jax.runtime import commands, process_flags

if TYPE_CHECKING:
  from unseg_jax.prediction.manifest import Part, Row

# Modules that use JAX are imported in functions, since every worker process imports this module.

PICTURES_A_WORKER = 16  # The fewest pictures for which starting a worker is worth its cost.

SEGMENTER = flags.DEFINE_string(
  "segmenter", "pretrained:faces", "Workdir of a run, segmenter file, ONNX file or pretrained:NAME."
)
INPUT = flags.DEFINE_string(
  "input", None, "Image, folder (searched recursively) or quoted glob to segment (required)."
)
OUTPUT = flags.DEFINE_string("output", "segmented", "Folder to write to, created if missing.")
BACKGROUND = flags.DEFINE_string(
  "background", None, "Also write composites on this colour (white, #2060a0) or image."
)
ANIMATE = flags.DEFINE_bool("animate", False, "Also write an animation that dims the background.")
REFINE = flags.DEFINE_string(
  "refine", "none", "Fit masks to image edges: guided or grabcut, both by OpenCV, or none."
)
AVERAGE = flags.DEFINE_bool(
  "average", False, "Average over three scales and mirror images; takes six times as long."
)
OUTPUTS = flags.DEFINE_list(
  "outputs", list(outputs.KINDS), "What to write for each image, of mask,cutout,overlay."
)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace existing files in --output.")
MAX_PIXELS = flags.DEFINE_integer(
  "max_pixels",
  reading.MAX_PIXELS,
  "Skip images with more pixels, which may exhaust memory when decoded.",
  lower_bound=1,
)
RESUME = flags.DEFINE_bool("resume", False, "Skip images that an identical earlier run finished.")


def command(argv: Sequence[str]) -> int:
  """Joins the other processes of the command, if any, and runs `main`."""
  from unseg_jax.runtime import failure, parallel
  from unseg_jax.storage import locks

  with failure.shared(locks.release):
    try:
      process_flags.start()
      parallel.keep_compiled()
    except Exception as error:
      sys.exit(commands.explain(error))
    return main(argv)


def main(argv: Sequence[str]) -> int:
  """Runs the command that the flags describe; returns its exit status."""
  from unseg_jax.runtime import parallel, preemption
  from unseg_jax.storage import locks

  try:
    commands.check_no_arguments(
      argv,
      ". Put quotes around a glob, as in --input='photos/*.jpg', so that the shell does not expand "
      "it.",
    )
    only_here = locks.held(OUTPUT.value, "--output") if parallel.is_primary() else nullcontext()
    with preemption.watch(), only_here:
      return predict(
        SEGMENTER.value,
        flags.FLAGS.input,  # Not `INPUT.value`, whose type does not reflect that it is required.
        OUTPUT.value,
        OVERWRITE.value,
        refine=REFINE.value,
        average=AVERAGE.value,
        background=BACKGROUND.value,
        animate=ANIMATE.value,
        kinds=OUTPUTS.value,
        resume=RESUME.value,
        processes=process_flags.WORKERS.value,
        max_pixels=MAX_PIXELS.value,
      )
  except preemption.Preempted as stop:
    print(stop, file=sys.stderr)
    return preemption.EXIT_STATUS
  except Exception as error:
    message = printable(commands.explain(error))
    if parallel.process_count() > 1:
      sys.exit(message)  # See `failure.shared`.
    print(message, file=sys.stderr)
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
  processes: int | None = None,
  max_pixels: int = reading.MAX_PIXELS,
) -> int:
  """Segments pictures; writes a mask, a cut-out and an overlay of each, and a manifest.

  Args:
    segmenter_folder: a segmenter that `Segmenter.restore` takes, such as the workdir of a run.
    pattern: the pictures, as `plan.plan` takes them.
    output: the output folder or its URL, created if missing. It reproduces the subfolders of a
      searched folder. If it is inside the searched folder, it is skipped in the search.
    overwrite: whether to replace existing files.
    refine: one of `refinement.METHODS`.
    average: whether to average over several views of each picture; see `Segmenter.views`.
    background: a colour that `PIL.ImageColor` accepts, or a picture, for a composite; None: no
      composite.
    animate: whether to write an animation.
    kinds: a subset of `outputs.KINDS` to write.
    resume: whether to skip pictures that the manifest lists as made by the same segmenter and
      settings, and to replace all other outputs.
    processes: the number of worker processes that read and encode pictures; 0: threads of this
      process; None: the number of free CPU cores.
    max_pixels: pictures of more pixels are skipped before they are decoded.

  Returns:
    The exit status: 0, or 1 if a picture was skipped because it is unreadable, its outputs exist or
    cannot be written, or memory ran out. Each skipped picture is named on stderr.

  Raises:
    FileNotFoundError: no picture matches, or the segmenter does not exist.
    ImportError: the refinement or a URL needs a package that is not installed.
    ValueError: an output would replace a picture or become an input of the next run, a refinement
      or an output is unknown, or `background` is neither a colour nor a picture.
    OSError: the folder cannot be searched, or outputs cannot be written, for example because the
      disk is full.
    workers.WorkerDied: a worker process ended unexpectedly.
    preemption.Preempted: a signal stopped the command; finished pictures are in the manifest.
  """
  from unseg_jax.inference import refinement
  from unseg_jax.inference.segmenter import Segmenter
  from unseg_jax.prediction import manifest, pictures, resuming
  from unseg_jax.prediction.plan import plan
  from unseg_jax.prediction.run import segment
  from unseg_jax.runtime import parallel, preemption, workers
  from unseg_jax.runtime.barrier import barrier
  from unseg_jax.storage.file_trees import open_tree

  tree = open_tree(output)
  refinement.check_method(refine)
  background_read = None if background is None else outputs.read_background(background, max_pixels)
  endings = list(outputs.encoders(kinds, background_read, animate))
  planned = plan(pattern, tree, endings, _say)
  segmenter = Segmenter.restore(segmenter_folder)
  settings = f"refine={refine} average={average}"
  made_by = f"segmenter={segmenter_folder} {settings}"
  if background is not None:
    made_by += f" background={background}"
  made_of = resuming.made_of(segmenter, segmenter_folder, background_read, settings)
  known = manifest.read(tree)
  barrier("the manifest is read")
  if parallel.is_primary():
    manifest.fold(tree)
  barrier("the manifest is in order")
  own = [planned[index] for index in parallel.own_indices(len(planned))]
  wanted = {picture: [picture.target + ending for ending in endings] for picture in own}
  existing: set[str] = set()
  if resume or not overwrite:
    existing = tree.existing({name for names in wanted.values() for name in names})
  refused: list[Row] = []
  if resume:
    earlier = resuming.sort_out(wanted, existing, known, made_by, made_of)
    for line in earlier.lines():
      _say(line)
  else:
    earlier = resuming.Earlier([])
    for picture, names in wanted.items():
      if kept := [tree.where(name) for name in names if name in existing]:
        reason = (
          f"{picture.source}: existing outputs {', '.join(kept)}; --overwrite replaces them, and "
          "--resume continues an interrupted run."
        )
        refused.append(pictures.skipped(picture, reason))
      else:
        earlier.todo.append(picture)
  work = pictures.Work(
    image_size=segmenter.image_size,
    average=average,
    refine=refine,
    kinds=tuple(kinds),
    background=background,
    animate=animate,
    output=output,
    made_by=made_by,
    made_of=made_of,
    max_pixels=max_pixels,
  )
  if processes is None:
    # Also if the network runs on the CPU: encoding the outputs takes longer.
    processes = min(workers.spare_processors(False), len(earlier.todo) // PICTURES_A_WORKER)
  # After a signal, no further pictures are started; those in progress are written.
  asked = itertools.takewhile(lambda _: not preemption.requested(), earlier.todo)
  rows = segment(segmenter, work, asked, len(earlier.todo), processes)
  part = manifest.Part.begin(tree, parallel.process_index())
  try:
    done, skipped = _follow(rows, len(own), earlier.made, refused, part)
  finally:
    part.close()
  # All processes wait for each other and exit together.
  if parallel.gather([done < len(own)]).any():
    preemption.leave(f"{done} of {len(own)} pictures are done, and --resume skips them")
  if parallel.is_primary():
    manifest.fold(tree)
  print(printable(f"{len(own) - skipped} of {len(own)} pictures segmented into {output}"))
  return 1 if skipped else 0


def _follow(
  rows: "Iterable[Row]", total: int, made: int, refused: "Sequence[Row]", part: "Part"
) -> tuple[int, int]:
  """Writes the rows and reports skipped pictures; returns the counts of done and skipped ones."""
  from unseg_jax.runtime import progress

  done, skipped = made + len(refused), len(refused)
  with progress.bar("predict", total, done, unit="picture") as bar:
    for row in refused:  # The manifest's row stays as it is.
      bar.write(printable(f"skipped: {row['skipped']}"), file=sys.stderr)
    for row in rows:
      if "skipped" in row:
        skipped += 1
        bar.write(printable(f"skipped: {row['skipped']}"), file=sys.stderr)
      part.add(row)
      done += 1
      bar.update()
  return done, skipped


def _say(line: str) -> None:
  print(printable(line), file=sys.stderr)


def printable(text: str) -> str:
  """Escapes what a terminal cannot print, including line breaks, in a text with file names."""
  line = "".join(
    letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode()
    for letter in text
  )
  encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
  return line.encode(encoding, "backslashreplace").decode(encoding)


if __name__ == "__main__":
  flags.mark_flag_as_required("input")
  # Hide log messages of libraries, but show warnings of this package.
  absl_logging.set_verbosity(absl_logging.ERROR)
  logging.getLogger("unseg_jax").setLevel(logging.WARNING)
  commands.run(command)
