"""The U-Net as StableHLO, by `jax.export`: one program for CPUs, CUDA and TPUs."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from unseg_jax.segmentation.unet import Unet

PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo_bytes(variables: Mapping[str, Any], widths: tuple[int, ...]) -> bytes:
  """Returns the program of a U-Net with its weights and its normalisation.

  `jax.export.deserialize(bytes).call` maps images `[N, H, W, 3]` uint8 to the probability of
  foreground `[N, H, W]` float32, for any H and W from 2 ** (levels - 1) on. It needs JAX and
  nothing of this package.

  Args:
    variables: `params` and `batch_stats` of a `unet.Unet`.
    widths: its channels, as `unet.Unet` takes them.

  Raises:
    ImportError: `flatbuffers` is not installed, which JAX writes the program with.
  """

  def probability(images):
    images = images.astype(jnp.float32) / 127.5 - 1.0
    logits = Unet(widths).apply(variables, images)
    return jax.nn.sigmoid(logits[..., 1] - logits[..., 0])

  least = 2 ** (len(widths) - 1)
  size = export.symbolic_shape("N, H, W", constraints=[f"H >= {least}", f"W >= {least}"])
  images = jax.ShapeDtypeStruct((*size, 3), jnp.uint8)
  exported = export.export(jax.jit(probability), platforms=PLATFORMS)(images)
  return bytes(exported.serialize())
