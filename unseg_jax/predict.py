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

and `predictions.jsonl`, a line of JSON for each picture: its outputs, size, share of foreground and
what it was made of, or why it was skipped. `--outputs=mask` writes less. Where two pictures would
share a NAME, as a.jpg and a.png do, it is a.jpg and a.png.

`--input` is a picture, a quoted glob, or a folder. A folder stands for all folders inside it, too,
and `--output` gets the same ones: `photos/a/b.jpg` becomes `segmented/a/b_mask.png`. An `--output`
inside such an `--input` is not searched for pictures. Hidden files and folders are left out. Either
may be the URL of a bucket's folder, gs:// or s3://: pictures are then read and written one by one.

One picture never ends the command: what cannot be read, a broken link, a name too long for its
outputs, or more pixels than memory holds is a line on stderr and a row of `predictions.jsonl`. A
batch has at most 2 million pixels for each device, and a process holds at most 67 million decoded
ones at a time, or one picture of more. Extremely long pictures are answered in pieces.

Pictures stand upright, and their colours are converted to sRGB by the profile that they bring; what
is transparent shows white. One of more than 180 million pixels is skipped; `--max_pixels` moves
this limit.

`--segmenter` may also be an ONNX file of `python -m unseg_jax.export`, which onnxruntime runs.

Many pictures: all devices work on them, and `--workers` processes read and encode. Several
processes (`--coordinator`, as in unseg_jax.main) each take their share. With `--resume`, what
`predictions.jsonl` says is made already of the same picture, by the same segmenter and settings, is
skipped, and the rest is made: a million pictures survive being stopped. Names do not count there: a
picture is known by its SHA-256, or by its bucket's tag, a segmenter by its weights.

The exit status is 1 if anything was skipped or went wrong, and stderr says what; 75 if the command
was asked to leave (SIGTERM, Ctrl-C, a lost terminal).
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

# What uses JAX is imported in functions: every worker process imports this module.

PICTURES_A_WORKER = 16  # For fewer, starting a worker does not pay off.

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
        flags.FLAGS.input,  # Marked as required, which its own value does not know.
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
    resume: whether to skip what the manifest says was made of the same picture, by the same
      segmenter and with the same settings, and to replace all other files.
    processes: worker processes that read and encode pictures; 0: threads of this process; None: as
      many as there are processors to spare.
    max_pixels: pictures of more pixels than this are skipped, before they are decoded.

  Returns:
    The exit status: 0, or 1 if a picture was skipped, as it cannot be read, its outputs exist
    already or cannot be written, or memory does not suffice. Each such picture is named on stderr.

  Raises:
    FileNotFoundError: no pictures match, or there is no segmenter.
    ImportError: what the refinement or a URL needs is not installed.
    ValueError: an output would replace a picture or become one of the next run's, a refinement or
      an output is unknown, or `background` is neither.
    OSError: the folder cannot be searched, or no outputs can be written, as the disk is full.
    workers.WorkerDied: a worker process ended in the middle of its work.
    preemption.Preempted: the command was asked to leave; what was made is in the manifest.
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
        reason = f"there is already {', '.join(kept)}; --overwrite replaces what is there, and "
        reason += "--resume goes on with a run that was stopped."
        refused.append(pictures.skipped(picture, f"{picture.source}, as {reason}"))
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
    processes = min(workers.spare_processors(False), len(earlier.todo) // PICTURES_A_WORKER)
  # Asked to leave, it takes no more pictures, and those under way are written.
  asked = itertools.takewhile(lambda _: not preemption.requested(), earlier.todo)
  rows = segment(segmenter, work, asked, len(earlier.todo), processes)
  part = manifest.Part.begin(tree, parallel.process_index())
  try:
    done, skipped = _follow(rows, len(own), earlier.made, refused, part)
  finally:
    part.close()
  # All processes wait for each other, and leave together.
  if parallel.gather([done < len(own)]).any():
    preemption.leave(f"{done} of {len(own)} pictures are done, and --resume skips them")
  if parallel.is_primary():
    manifest.fold(tree)
  print(printable(f"{len(own) - skipped} of {len(own)} pictures segmented into {output}"))
  return 1 if skipped else 0


def _follow(
  rows: "Iterable[Row]", total: int, made: int, refused: "Sequence[Row]", part: "Part"
) -> tuple[int, int]:
  """Notes the rows as they come; returns how many are done, and were skipped, named on stderr."""
  from unseg_jax.runtime import progress

  done, skipped = made + len(refused), len(refused)
  with progress.bar("predict", total, done, unit="picture") as bar:
    for row in refused:  # What the manifest says of it is still so.
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
  """Returns a text on one line that any terminal takes: what is in names but no text is escaped."""
  line = "".join(
    letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode()
    for letter in text
  )
  encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
  return line.encode(encoding, "backslashreplace").decode(encoding)


if __name__ == "__main__":
  flags.mark_flag_as_required("input")
  # The libraries' own chatter stays out of the way; this package's few lines are shown.
  absl_logging.set_verbosity(absl_logging.ERROR)
  logging.getLogger("unseg_jax").setLevel(logging.WARNING)
  commands.run(command)
