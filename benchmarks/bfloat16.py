"""Compares masks computed in bfloat16 with those in float32, pixel by pixel.

python benchmarks/bfloat16.py [--generators=pretrained:dcgan_faces,FILE] [--steps=100] [--batch=16]
  [--count=256]

For each converted generator, it runs a search of `--steps` steps in each type. It then compares the
masks of `--count` candidates: in float32 from the direction of the float32 search; and in bfloat16
from the same direction, and from that of the bfloat16 search. The filters are the paper's.
"""

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from common import cases, command_line, experiments
from unseg_jax import default_config, generators
from unseg_jax.direction import search
from unseg_jax.inference.segmenter import Segmenter
from unseg_jax.runtime import parallel
from unseg_jax.segmentation.unet import Unet
from unseg_jax.synthesis import candidates

CHUNK = 64  # Images per batch.


def compare_masks(count: int) -> np.ndarray:
  """Prints the agreement of `count` masks of the face generator; returns their images, uint8."""
  config = experiments.load("dcgan_faces.py")
  generator = generators.load(config.generator)
  direction = cases.faces_direction()
  exact, rough = (
    make(generator, config.generate, dtype, direction, count) for dtype in generators.DTYPES
  )
  print(
    f"\nbfloat16 and float32, {count} candidates of {config.generator}: {agreement(exact, rough)}",
    flush=True,
  )
  return exact["image"]


def make(
  generator: generators.Generator,
  config: ml_collections.ConfigDict,
  dtype: str,
  directions: np.ndarray,
  count: int,
) -> dict[str, Any]:
  """Returns the first candidates of a stream, computed in this type."""
  cast = generators.with_dtype(generator, dtype)
  compute = parallel.jit(candidates.make_candidates(cast, config))
  chunks = [
    jax.device_get(compute(cast.variables, directions, jax.random.key(8), indices))
    for indices in _chunks(np.arange(count))
  ]
  return jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)


def agreement(exact: Mapping[str, Any], rough: Mapping[str, Any]) -> str:
  """Describes how far candidates agree: all masks, those kept by both, the worst, the filters."""
  agree = (exact["mask"] == rough["mask"]).mean(axis=(1, 2))
  verdicts = [chunk["verdicts"]["all"] for chunk in (exact, rough)]
  both = np.logical_and(*verdicts)
  kept = f"{agree[both].mean():.2%}" if both.any() else "-"
  return (
    f"masks agree on {agree.mean():.2%} of the pixels ({kept} of the {both.sum()} pairs that both "
    f"keep; the worst candidate: {agree.min():.1%}), the filters on "
    f"{np.equal(*verdicts).mean():.1%} of the candidates"
  )


def compare_search(name: str, steps: int, batch: int, count: int) -> None:
  """Prints the agreement of masks if candidates, or candidates and search, use bfloat16."""
  generator, config = generators.load(name), default_config.get_config()
  config.search.update({"steps": steps, "batch_size": batch})
  found = {}
  for dtype in generators.DTYPES:
    config.search.dtype = dtype
    with tempfile.TemporaryDirectory() as folder:
      found[dtype] = search.search(generator, config.search, jax.random.key(0), Path(folder))
  directions = {dtype: each.directions[0] for dtype, each in found.items()}
  exact = make(generator, config.generate, "float32", directions["float32"], count)
  flat = [each.ravel() / np.linalg.norm(each) for each in directions.values()]
  print(
    f"{name}, {generator.image_size} px: cosine of the directions after {steps} steps "
    f"{np.dot(*flat):.5f}",
    flush=True,
  )
  for searched in generators.DTYPES:
    rough = make(generator, config.generate, "bfloat16", directions[searched], count)
    print(f"  candidates in bfloat16, search in {searched}: {agreement(exact, rough)}", flush=True)


def compare_segmenter(path: str, images: np.ndarray) -> None:
  """Prints the share of pixels on which a U-Net in bfloat16 agrees with float32.

  Args:
    path: the segmenter.
    images: `[N, S, S, 3]` uint8.
  """
  segmenter = Segmenter.restore(path)
  variables, features = segmenter.variables, segmenter.features

  def foreground(dtype):
    network = parallel.jit(Unet(features, jnp.dtype(dtype)).apply)
    parts = [
      np.asarray(network(variables, part.astype(np.float32) / 127.5 - 1))
      for part in _chunks(images)
    ]
    logits = np.concatenate(parts)
    return logits[..., 1] > logits[..., 0]

  agree = (foreground("float32") == foreground("bfloat16")).mean(axis=(1, 2))
  print(
    f"bfloat16 and float32, the U-Net of {path} on these pictures: the same class on "
    f"{agree.mean():.2%} of the pixels; the worst picture: {agree.min():.1%}",
    flush=True,
  )


def _chunks(array: np.ndarray) -> list[np.ndarray]:
  return np.split(array, range(CHUNK, len(array), CHUNK))


def main() -> None:
  """Compares the generators of the flags."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument(
    "--generators", default="pretrained:dcgan_faces", help="Generators, comma-separated."
  )
  parser.add_argument(
    "--steps", type=command_line.positive, default=100, help="Steps of the search."
  )
  parser.add_argument(
    "--batch", type=command_line.positive, default=16, help="Batch size of the search."
  )
  parser.add_argument(
    "--count", type=command_line.positive, default=256, help="Number of candidates."
  )
  arguments = command_line.parse(parser)
  for name in arguments.generators.split(","):
    compare_search(name, arguments.steps, arguments.batch, arguments.count)


if __name__ == "__main__":
  main()
