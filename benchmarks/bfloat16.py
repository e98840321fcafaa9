"""How safe bfloat16 is: on how many pixels its masks are those of float32."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from unseg_jax.configs import dcgan_faces

import cases
from unseg_jax import generators
from unseg_jax.runtime import parallel
from unseg_jax.segmentation.segmenter import Segmenter
from unseg_jax.segmentation.unet import Unet
from unseg_jax.synthesis import candidates

CHUNK = 64  # Images at once.


def compare_masks(count: int) -> np.ndarray:
  """Prints how far so many masks of the face generator agree; returns their images, uint8."""
  config = dcgan_faces.get_config()
  generator = generators.load(config.generator)
  direction, made = cases.faces_direction(), {}
  for dtype in generators.DTYPES:
    cast = generators.with_dtype(generator, dtype)
    compute = parallel.jit(candidates.make_candidates(cast, config.generate))
    chunks = [
      jax.device_get(compute(cast.variables, direction, jax.random.key(8), indices))
      for indices in _chunks(np.arange(count))
    ]
    made[dtype] = jax.tree.map(lambda *parts: np.concatenate(parts), *chunks)
  exact, rough = made["float32"], made["bfloat16"]
  agree = (exact["mask"] == rough["mask"]).mean(axis=(1, 2))
  verdicts = [chunk["verdicts"]["all"] for chunk in (exact, rough)]
  both = np.logical_and(*verdicts)
  print(
    f"\nbfloat16 and float32, {count} candidates of {config.generator}: masks agree on "
    f"{agree.mean():.2%} of the pixels ({agree[both].mean():.2%} of the {both.sum()} pairs that "
    f"both keep; the worst candidate: {agree.min():.1%}), the filters on "
    f"{np.equal(*verdicts).mean():.1%} of the candidates",
    flush=True,
  )
  return exact["image"]


def compare_segmenter(path: str, images: np.ndarray) -> None:
  """Prints on how many pixels of `[N, S, S, 3]` uint8 a U-Net in bfloat16 agrees with float32."""
  variables = Segmenter.restore(path).variables
  widths = _widths(variables)

  def foreground(dtype):
    network = parallel.jit(Unet(widths, jnp.dtype(dtype)).apply)
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


def _widths(variables: dict) -> Sequence[int]:
  levels = ["inc", *sorted(name for name in variables["params"] if name.startswith("down_"))]
  return tuple(variables["params"][level]["conv_1"]["kernel"].shape[-1] for level in levels)
