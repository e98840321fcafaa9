"""Draws samples of a converted generator for visual inspection."""

import math
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from unseg_jax import generators
from unseg_jax.images import writing
from unseg_jax.storage import places, whole_files

_BATCH = 4  # Small enough for the largest generators in little memory.


def sheet_path(generator_file: str | os.PathLike) -> pathlib.Path:
  """Returns the path of a generator file's contact sheet: `*_samples.png` beside the file."""
  path = places.path(generator_file)
  return path.with_name(f"{path.stem}_samples.png")


def draw(generator_file: str | os.PathLike, num_samples: int) -> pathlib.Path:
  """Loads a generator from its file and draws its first samples as a PNG file beside it.

  The same generator always gives the same samples. The sheet is written atomically and replaces any
  earlier one.

  Args:
    generator_file: the output of `convert_file`.
    num_samples: number of samples, at least 1; they fill a roughly square grid.

  Returns:
    The path of the sheet.

  Raises:
    FileNotFoundError, ValueError: as in `generators.load`, or the samples hold NaN.
  """
  generator = generators.load(os.fspath(generator_file))
  generate, key = jax.jit(generator.generate), jax.random.key(0)
  batch = min(num_samples, _BATCH)
  batches = []
  for start in range(0, num_samples, batch):
    indices = jnp.arange(start, start + batch, dtype=jnp.int32)
    latents, labels = generators.sample_at(generator, key, indices)
    batches.append(np.asarray(generate(generator.variables, latents, labels)))
  images = writing.to_uint8(np.concatenate(batches)[:num_samples])
  path = sheet_path(generator_file)
  with whole_files.whole_file(path) as temporary:
    temporary.write_bytes(writing.png_bytes(writing.grid(images, math.isqrt(num_samples))))
  return path
