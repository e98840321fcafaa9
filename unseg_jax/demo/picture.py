"""The first tab: a picture, its probability of foreground, and what is drawn of them."""

import dataclasses
import functools
import re
from pathlib import Path

import numpy as np

from unseg_jax.array_types import Float, UInt8
from unseg_jax.demo import limits
from unseg_jax.errors import InvalidValue
from unseg_jax.images import drawing
from unseg_jax.inference import refinement, segmenter_files
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.prediction import outputs

THRESHOLDS = (0.02, 0.98)  # At 0 and 1, everything would be on one side.


@dataclasses.dataclass(frozen=True)
class Segmented:
  """A picture and what a segmenter says of it.

  Attributes:
    name: the file's, without its ending.
    image: the picture.
    probability: in [0, 1], how likely each pixel is foreground.
  """

  name: str
  image: UInt8[np.ndarray, "h w 3"]
  probability: Float[np.ndarray, "h w"]


@functools.lru_cache(maxsize=4)
def _restore(choice: str, identity: str) -> Segmenter:
  del identity  # Of the choice's files: others are another segmenter.
  return Segmenter.restore(choice)


def restore(choice: str) -> Segmenter:
  """Restores a segmenter, or returns it if it was used a moment ago; see `Segmenter.restore`."""
  return _restore(choice, segmenter_files.identity(choice))


def segment(path: str | Path, choice: str, average: bool, refine: str) -> Segmented:
  """Segments a picture that somebody sent, at its full resolution.

  Args:
    path: the file.
    choice: what `Segmenter.restore` takes.
    average: whether to average over several views; see `Segmenter.views`.
    refine: one of `refinement.METHODS`.

  Raises:
    ImportError: what the refinement needs is not installed.
    ValueError, FileNotFoundError: the picture is refused, or the segmenter does not exist.
  """
  image = limits.read_upload(path)
  probability = refinement.refine(restore(choice)(image, average), image, refine)
  return Segmented(Path(path).stem, image, probability)


def small(segmented: Segmented) -> Segmented:
  """Shrinks what is shown, and held for a visitor, to at most 512 pixels a side."""
  image, probability = map(drawing.shrink, (segmented.image, segmented.probability))
  return Segmented(segmented.name, image, probability)


def at_threshold(
  probability: Float[np.ndarray, "*shape"], threshold: float
) -> Float[np.ndarray, "*shape"]:
  """Moves probabilities so that a threshold becomes 0.5, which everything drawn goes by.

  The logit of the threshold is taken from each logit: their order stays, and so do 0 and 1.

  Args:
    probability: in [0, 1].
    threshold: above which a pixel is to be foreground, inside (0, 1); 0.5 changes nothing.

  Raises:
    ValueError: the threshold is not inside (0, 1).
  """
  if not 0 < threshold < 1:
    raise InvalidValue(f"threshold={threshold}: expected a probability inside (0, 1), such as 0.5")
  if threshold == 0.5:
    return probability
  for_it = probability * np.float32(1 - threshold)
  against = (1 - probability) * np.float32(threshold)
  return for_it / (for_it + against)


def colour(text: str) -> tuple[int, int, int]:
  """Reads a colour as browsers write it: `#2060a0`, `rgb(...)` or `rgba(...)`, opacity left out.

  Raises:
    ValueError: it is none of these.
  """
  if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue
  numbers = [float(number) for number in re.findall(r"[\d.]+", text)]
  if not text.startswith("rgb") or len(numbers) not in (3, 4) or max(numbers[:3]) > 255:
    raise InvalidValue(f"{text!r} is no colour; expected one such as #2060a0")
  red, green, blue = map(round, numbers[:3])
  return red, green, blue


def views(
  segmented: Segmented, threshold: float, background: outputs.Background
) -> tuple[drawing.Views, float]:
  """Draws what the page shows.

  Args:
    segmented: the picture, of `small`.
    threshold: above which a pixel is foreground.
    background: a colour or a picture, for the composite.

  Returns:
    Mask, cut-out, overlay and composite; and the share of the picture that is foreground.
  """
  image, probability = segmented.image, at_threshold(segmented.probability, threshold)
  shown = {
    "Mask": np.where(probability > 0.5, 255, 0).astype(np.uint8),
    "Cut-out": drawing.cutout(image, probability),
    "Overlay": drawing.overlay(image, probability),
    "Composite": drawing.composite(image, probability, background),
  }
  return shown, float(np.mean(probability > 0.5))


def write_files(
  segmented: Segmented, threshold: float, background: outputs.Background, folder: Path
) -> list[str]:
  """Writes mask, cut-out, overlay and composite at full resolution; returns the paths."""
  probability = at_threshold(segmented.probability, threshold)
  paths = []
  for ending, encode in outputs.encoders(outputs.KINDS, background, animate=False).items():
    path = folder / f"{segmented.name}{ending}"
    path.write_bytes(encode(lambda: segmented.image, probability))
    paths.append(str(path))
  return paths
