"""Exports the U-Net with JAX: to StableHLO, and from there to TensorFlow Lite."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from unseg_jax.array_types import Array, Float, UInt8
from unseg_jax.errors import MissingPackage
from unseg_jax.runtime import host_tensorflow
from unseg_jax.segmentation.unet import Unet

PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo_bytes(variables: Mapping[str, Any], features: tuple[int, ...]) -> bytes:
  """Returns the StableHLO program of a U-Net, with its weights and its normalisation.

  `jax.export.deserialize(bytes).call` maps images `[N, H, W, 3]` uint8 to the probability of
  foreground `[N, H, W]` float32, for any H and W of at least 2 ** (levels - 1). It needs JAX, but
  not this package.

  Args:
    variables: `params` and `batch_stats` of a `unet.Unet`.
    features: its channels, as `unet.Unet` takes them.

  Raises:
    ImportError: `flatbuffers`, with which JAX serialises the program, is not installed.
  """
  least = 2 ** (len(features) - 1)
  size = export.symbolic_shape("N, H, W", constraints=[f"H >= {least}", f"W >= {least}"])
  images = jax.ShapeDtypeStruct((*size, 3), jnp.uint8)
  function = jax.jit(_probability(variables, features))
  exported = export.export(function, platforms=PLATFORMS)(images)
  try:
    return bytes(exported.serialize())
  except ImportError as error:
    raise MissingPackage(
      f"the format stablehlo needs flatbuffers, which cannot be imported ({error}); install it "
      "with: pip install 'unseg-jax[export]'"
    ) from error


def tflite_bytes(variables: Mapping[str, Any], features: tuple[int, ...], image_size: int) -> bytes:
  """Returns the TensorFlow Lite file of a U-Net with its normalisation.

  It maps one image `[1, S, S, 3]` uint8 to the probability of foreground `[1, S, S]` float32, where
  S is the image size. The converter of TensorFlow 2.21 supports this network at fixed sizes only,
  including the batch size.

  Args:
    variables: `params` and `batch_stats` of a `unet.Unet`.
    features: its channels, as `unet.Unet` takes them.
    image_size: S, the image size in training.

  Raises:
    ImportError: TensorFlow is not installed.
  """
  tf = host_tensorflow.import_tensorflow("the format tflite")
  from jax.experimental import jax2tf  # It imports TensorFlow.

  module = tf.Module()  # The converter needs an object that owns the function.
  module.probability = tf.function(
    jax2tf.convert(
      _probability(variables, features), with_gradient=False, native_serialization_platforms=["cpu"]
    ),
    input_signature=[tf.TensorSpec([1, image_size, image_size, 3], tf.uint8, "images")],
    autograph=False,
  )
  function = module.probability.get_concrete_function()
  return tf.lite.TFLiteConverter.from_concrete_functions([function], module).convert()


def _probability(
  variables: Mapping[str, Any], features: tuple[int, ...]
) -> Callable[[UInt8[Array, "n h w 3"]], Float[Array, "n h w"]]:
  """Returns the function to export."""

  def probability(images: UInt8[Array, "n h w 3"]) -> Float[Array, "n h w"]:
    logits: Any = Unet(features).apply(variables, images.astype(jnp.float32) / 127.5 - 1.0)
    return jax.nn.sigmoid(logits[..., 1] - logits[..., 0])

  return probability
