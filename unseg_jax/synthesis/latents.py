"""Latents from a file, such as the embeddings of real images, in place of a generator's prior."""

import dataclasses
import sys

import numpy as np

from unseg_jax.array_types import Float, Int
from unseg_jax.errors import InvalidValue
from unseg_jax.storage import places

# Where each split's rows begin and end: no latent is used in two splits.
SHARES = {"test": (0.0, 0.05), "validation": (0.05, 0.1), "train": (0.1, 1.0)}


def read(path: str, latent_shape: tuple[int, ...]) -> Float[np.ndarray, " n *latent_shape"]:
  """Opens a file of latents, without loading it.

  Args:
    path: a `.npy` file, or its URL.
    latent_shape: the generator's.

  Returns:
    The array, on disk.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is no such array.
  """
  try:
    # Pickled objects, which could run code, are refused.
    rows = np.load(places.local(path), mmap_mode="r", allow_pickle=False)
  except FileNotFoundError as error:
    raise FileNotFoundError(f"no file of latents at config.generate.latents={path}") from error
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
  """The latents of one split: candidate `i` takes row `i`.

  Attributes:
    array: all latents.
    split: `train`, `validation` or `test`.
    noise: standard deviation of the noise that is added to them. With noise, candidates start again
      at the first row after the last; without, the rows limit their number.
  """

  array: Float[np.ndarray, " n *latent_shape"]
  split: str
  noise: float | int

  @property
  def range(self) -> tuple[int, int]:
    """The split's part of the file."""
    start, end = (int(share * len(self.array)) for share in SHARES[self.split])
    return start, end

  def limit(self, chunk: int) -> int:
    """How many candidates there are, in whole chunks."""
    start, end = self.range
    if self.noise and end > start:
      return sys.maxsize
    return (end - start) // chunk * chunk

  def at(self, candidates: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n *latent_shape"]:
    """Returns the float32 latents of some candidates.

    Raises:
      ValueError: one of them is not finite.
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
    """Says that the file is used up."""
    start, end = self.range
    return (
      f"the split {self.split} may use the rows {start} to {end} of the {len(self.array):,} in "
      f"config.generate.latents; they gave {num_accepted:,} images that pass the filters, but "
      f"config.generate.num_images.{self.split}={num_images:,}. Ask for fewer, take a larger file, "
      "or set config.generate.latent_noise to use every row again with other noise."
    )
