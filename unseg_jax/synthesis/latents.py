"""Reads latents from a file, such as embeddings of real images, instead of sampling a prior."""

import dataclasses
import sys

import numpy as np

from unseg_jax.array_types import Float, Int
from unseg_jax.errors import InvalidValue
from unseg_jax.storage import places

# The start and end of each split's rows, as fractions of the file. Splits do not share latents.
SHARES = {"test": (0.0, 0.05), "validation": (0.05, 0.1), "train": (0.1, 1.0)}


def read(path: str, latent_shape: tuple[int, ...]) -> Float[np.ndarray, " n *latent_shape"]:
  """Opens a file of latents without loading it.

  Args:
    path: a `.npy` file or its URL.
    latent_shape: the latent shape of the generator.

  Returns:
    The memory-mapped array.

  Raises:
    FileNotFoundError: the file does not exist.
    ValueError: the file does not hold such an array.
  """
  try:
    # Pickled objects are rejected, because loading them can run code.
    rows = np.load(places.local(path), mmap_mode="r", allow_pickle=False)
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f"config.generate.latents={path} does not exist; expected a .npy file of latents"
    ) from error
  except (ValueError, EOFError) as error:
    raise InvalidValue(f"{path} is not an array in a .npy file ({error})") from error
  expected = f"[n, {', '.join(map(str, latent_shape))}]"
  if not isinstance(rows, np.ndarray) or rows.shape[1:] != latent_shape or rows.dtype.kind != "f":
    content = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, np.ndarray) else "an archive"
    raise InvalidValue(
      f"{path} holds {content}; expected floating-point latents {expected} of this generator"
    )
  return rows


@dataclasses.dataclass(frozen=True)
class Rows:
  """The latents of one split; candidate `i` uses row `i`.

  Attributes:
    array: all latents.
    split: `train`, `validation` or `test`.
    noise: standard deviation of the noise added to latents. With noise, candidates reuse the rows
      from the first one. Without noise, the number of rows limits the number of candidates.
  """

  array: Float[np.ndarray, " n *latent_shape"]
  split: str
  noise: float | int

  @property
  def range(self) -> tuple[int, int]:
    """The first row of the split and the end of its rows."""
    start, end = (int(share * len(self.array)) for share in SHARES[self.split])
    return start, end

  def limit(self, chunk: int) -> int:
    """Returns the number of available candidates, in full chunks."""
    start, end = self.range
    if self.noise and end > start:
      return sys.maxsize
    return (end - start) // chunk * chunk

  def at(self, candidates: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n *latent_shape"]:
    """Returns the float32 latents of the given candidates.

    Raises:
      ValueError: a latent is not finite.
    """
    start, end = self.range
    index = start + candidates % (end - start)
    rows = np.asarray(self.array[index], np.float32)
    finite = np.isfinite(rows).reshape(len(rows), -1).all(axis=1)
    if not finite.all():
      raise InvalidValue(
        f"latent {index[np.argmin(finite)]} of config.generate.latents is not finite; remove it"
      )
    return rows

  def too_few(self, num_images: int, num_accepted: int) -> str:
    """Returns the error message for an exhausted file."""
    start, end = self.range
    return (
      f"the split {self.split} may use the rows {start} to {end} of the {len(self.array):,} in "
      f"config.generate.latents; they gave {num_accepted:,} images that pass the filters, but "
      f"config.generate.num_images.{self.split}={num_images:,}. Request fewer images, use a larger "
      "file, or set config.generate.latent_noise to reuse every row with different noise."
    )
