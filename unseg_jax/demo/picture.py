"""The first tab: an image, its foreground probability, and views of both."""

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

THRESHOLDS = (0.02, 0.98)  # At 0 or 1, all pixels would be on one side.


@dataclasses.dataclass(frozen=True)
class Segmented:
  """An image and a segmenter's prediction for it.

  Attributes:
    name: of the file, without its suffix.
    image: the image.
    probability: in [0, 1], the probability that a pixel is foreground.
  """

  name: str
  image: UInt8[np.ndarray, "h w 3"]
  probability: Float[np.ndarray, "h w"]


@functools.lru_cache(maxsize=4)
def _restore(choice: str, identity: str) -> Segmenter:
  del identity  # Part of the cache key: changed files are another segmenter.
  return Segmenter.restore(choice)


def restore(choice: str) -> Segmenter:
  """Restores a segmenter, or returns it from a cache; see `Segmenter.restore`."""
  return _restore(choice, segmenter_files.identity(choice))


def segment(path: str | Path, choice: str, average: bool, refine: str) -> Segmented:
  """Segments an uploaded image at its full resolution.

  Args:
    path: the file.
    choice: the segmenter, as `Segmenter.restore` accepts it.
    average: whether to average over several views; see `Segmenter.views`.
    refine: one of `refinement.METHODS`.

  Raises:
    ImportError: the package for the refinement is not installed.
    ValueError, FileNotFoundError: the image is refused, or the segmenter does not exist.
  """
  image = limits.read_upload(path)
  probability = refinement.refine(restore(choice)(image, average), image, refine)
  return Segmented(Path(path).stem, image, probability)


def small(segmented: Segmented) -> Segmented:
  """Shrinks the image and its probability to at most 512 pixels a side, to show and keep them."""
  image, probability = map(drawing.shrink, (segmented.image, segmented.probability))
  return Segmented(segmented.name, image, probability)


def at_threshold(
  probability: Float[np.ndarray, "*shape"], threshold: float
) -> Float[np.ndarray, "*shape"]:
  """Maps probabilities so that the threshold becomes 0.5, which all views use.

  The logit of the threshold is subtracted from each logit. The map is increasing; it keeps 0 and 1.

  Args:
    probability: in [0, 1].
    threshold: in (0, 1); pixels above it become foreground. 0.5 changes nothing.

  Raises:
    ValueError: the threshold is not in (0, 1).
  """
  if not 0 < threshold < 1:
    raise InvalidValue(f"threshold={threshold}: expected a probability in (0, 1), such as 0.5")
  if threshold == 0.5:
    return probability
  for_it = probability * np.float32(1 - threshold)
  against = (1 - probability) * np.float32(threshold)
  return for_it / (for_it + against)


def colour(text: str) -> tuple[int, int, int]:
  """Reads a colour in the notation of browsers: `#2060a0`, `rgb(...)` or `rgba(...)`.

  The opacity is ignored.

  Raises:
    ValueError: the text is not a colour.
  """
  if re.fullmatch(r"#[0-9a-fA-F]{6}", text):
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue
  numbers = [float(number) for number in re.findall(r"[\d.]+", text)]
  if not text.startswith("rgb") or len(numbers) not in (3, 4) or max(numbers[:3]) > 255:
    raise InvalidValue(f"{text!r} is not a colour; expected a colour such as #2060a0")
  red, green, blue = map(round, numbers[:3])
  return red, green, blue


def views(
  segmented: Segmented, threshold: float, background: outputs.Background
) -> tuple[drawing.Views, float]:
  """Draws the views of the page.

  Args:
    segmented: the image, from `small`.
    threshold: pixels above it are foreground.
    background: a colour or an image, for the composite.

  Returns:
    Mask, cut-out, overlay and composite; and the share of foreground pixels.
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
