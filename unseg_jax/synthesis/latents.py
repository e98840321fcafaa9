"""Latents from a file, such as the embeddings of real images, in place of a generator's prior."""

import dataclasses
import sys

import numpy as np

from unseg_jax.storage import places

# Where each split's rows begin and end: no latent is used in two splits.
SHARES = {"test": (0.0, 0.05), "validation": (0.05, 0.1), "train": (0.1, 1.0)}


def read(path: str, latent_shape: tuple[int, ...]) -> np.ndarray:
  """Opens a file of latents, without loading it.

  Args:
    path: a `.npy` file, or its URL, of `[n, *latent_shape]` numbers.
    latent_shape: the generator's.

  Returns:
    The array `[n, *latent_shape]`, on disk.

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
    raise ValueError(f"{path} is not an array in a .npy file ({error})") from error
  expected = f"[n, {', '.join(map(str, latent_shape))}]"
  if not isinstance(rows, np.ndarray) or rows.shape[1:] != latent_shape or rows.dtype.kind != "f":
    found = f"{rows.dtype} {list(rows.shape)}" if isinstance(rows, np.ndarray) else "an archive"
    raise ValueError(
      f"{path} holds {found}; expected floating-point latents {expected} of this generator"
    )
  return rows


@dataclasses.dataclass(frozen=True)
class Rows:
  """The latents of one split: candidate `i` takes row `i`.

  Attributes:
    array: all latents, `[n, *latent_shape]`.
    split: `train`, `validation` or `test`.
    noise: standard deviation of the noise that is added to them. With it, candidates start again
      at the first row when the last was used; without, there are no more.
  """

  array: np.ndarray
  split: str
  noise: float

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

  def at(self, candidates: np.ndarray) -> np.ndarray:
    """The latents of some candidates, `[n, *latent_shape]` float32.

    Raises:
      ValueError: one of them is not finite.
    """
    start, end = self.range
    index = start + candidates % (end - start)
    found = np.asarray(self.array[index], np.float32)
    finite = np.isfinite(found).reshape(len(found), -1).all(axis=1)
    if not finite.all():
      raise ValueError(
        f"latent {index[np.argmin(finite)]} of config.generate.latents is not finite; remove it"
      )
    return found

  def too_few(self, wanted: int, found: int) -> str:
    """Says that the file is used up."""
    start, end = self.range
    return (
      f"the split {self.split} may use the rows {start} to {end} of the {len(self.array):,} in "
      f"config.generate.latents; they gave {found:,} images that pass the filters, but "
      f"config.generate.num_images.{self.split}={wanted:,}. Ask for fewer, take a larger file, or "
      "set config.generate.latent_noise to use every row again with other noise."
    )
