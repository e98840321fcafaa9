"""Segmenters as ONNX files. onnxruntime runs them, without JAX.

`unseg_jax/export/to_onnx.py` writes such files. A file may come from an untrusted source, so it is
checked before it runs: it may contain only the operations of a U-Net and no external data.
"""

import importlib
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from unseg_jax.array_types import Float, Int, UInt8
from unseg_jax.errors import InvalidValue, MissingPackage

# The names of the network's input and outputs.
IMAGES, PROBABILITY, LOGITS = "images", "probability", "logits"

# Keys of the metadata: the version of this package's format, and the image size in training.
VERSION_KEY, VERSION = "unseg_jax_segmenter", "1"
IMAGE_SIZE_KEY = "image_size"

OPERATIONS = frozenset(
  "Cast Concat Conv Div MaxPool Pad Relu Resize Shape Sigmoid Squeeze Sub Transpose".split()
)
MAX_IMAGE_SIZE = 4096  # An untrusted file sets the size to which images are resized.

_EXPECTED = "expected a file that `python -m unseg_jax.export --format=onnx` wrote"


def library(name: str) -> types.ModuleType:
  """Imports `onnx` or `onnxruntime`.

  Raises:
    ImportError: it is not installed; the message names the package to install.
  """
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise MissingPackage(
      f"ONNX files need {name}, which cannot be imported ({error}); install the extra `export`: "
      "pip install 'unseg-jax[export]', or: pip install onnx onnxruntime"
    ) from error


def read(path: Path) -> tuple[int, Callable[..., np.ndarray]]:
  """Reads a segmenter that runs on the CPU.

  Returns:
    The image size in training, and a function as `Segmenter.logits` describes it. The function
    ignores its `variables` and runs one image at a time.

  Raises:
    ImportError: `onnx` or `onnxruntime` is not installed.
    ValueError: the file is damaged or is not an exported segmenter.
    OSError: the file cannot be read.
  """
  onnx, onnxruntime = library("onnx"), library("onnxruntime")
  contents = Path(path).read_bytes()
  try:
    model = onnx.load_model_from_string(contents)
  except Exception as error:  # protobuf raises several unrelated types.
    raise InvalidValue(f"{path} is not an ONNX file, or damaged ({error}): {_EXPECTED}") from error
  if problem := find_problem(model):
    raise InvalidValue(f"{path} {problem}: {_EXPECTED}")
  options = onnxruntime.SessionOptions()
  options.log_severity_level = 4  # Fatal only: errors are reported by the exception.
  try:
    # Serialise the checked model again, so that nothing unchecked runs: onnxruntime accepts other
    # formats than ONNX, and may interpret fields that this version of `onnx` does not know.
    model.DiscardUnknownFields()
    session = onnxruntime.InferenceSession(
      model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
  except Exception as error:  # onnxruntime's exceptions have no narrower base class.
    raise InvalidValue(f"{path} cannot be run by onnxruntime ({error}): {_EXPECTED}") from error
  return int(_metadata(model)[IMAGE_SIZE_KEY]), _logits(session, path)


def _logits(session: Any, path: Path) -> Callable[..., np.ndarray]:
  def logits(
    variables: Mapping[str, Any],
    images: UInt8[np.ndarray, "n h w 3"],
    sizes: Int[np.ndarray, "n 2"],
  ) -> Float[np.ndarray, "n h w"]:
    del variables  # The file contains the weights.
    padded = np.zeros(images.shape[:3], np.float32)
    for row, image, (height, width) in zip(padded, images, sizes, strict=True):
      try:
        (computed,) = session.run([LOGITS], {IMAGES: image[None, :height, :width]})
      except Exception as error:
        raise InvalidValue(
          f"{path} fails on an image [{height}, {width}, 3] ({error}): {_EXPECTED}"
        ) from error
      if computed.shape != (1, height, width):
        raise InvalidValue(
          f"{path} returned {list(computed.shape)} for an image [{height}, {width}, 3]: {_EXPECTED}"
        )
      row[:height, :width] = computed[0]
    return padded

  return logits


def find_problem(model: Any) -> str | None:
  """Returns why an `onnx.ModelProto` is not a segmenter of this package, or None if it is one."""
  if any(tensor.external_data or tensor.data_location for tensor in _tensors(model)):
    return "keeps weights in another file, which is not read"
  metadata = _metadata(model)
  if (version := metadata.get(VERSION_KEY)) != VERSION:
    return f"is an ONNX file with {VERSION_KEY}={version!r} in its metadata, not {VERSION!r}"
  size = metadata.get(IMAGE_SIZE_KEY, "")
  if not (size.isdecimal() and 0 < int(size) <= MAX_IMAGE_SIZE):
    return f"has {IMAGE_SIZE_KEY}={size!r} in its metadata, not 1 to {MAX_IMAGE_SIZE}"
  operations = {f"{node.domain}:{node.op_type}".removeprefix(":") for node in model.graph.node}
  if foreign := sorted(operations - OPERATIONS) or [function.name for function in model.functions]:
    return f"contains the operation {foreign[0]}, which no segmenter has"
  names = [value.name for value in model.graph.input]
  outputs = {value.name for value in model.graph.output}
  if names != [IMAGES] or outputs != {PROBABILITY, LOGITS}:
    return f"maps {names} to {sorted(outputs)}, not ['{IMAGES}'] to {[LOGITS, PROBABILITY]}"
  return None


def _metadata(model: Any) -> dict[str, str]:
  return {entry.key: entry.value for entry in model.metadata_props}


def _tensors(message: Any) -> Iterator[Any]:
  """Yields all tensors of a protobuf message: weights, attributes and those of subgraphs."""
  if message.DESCRIPTOR.full_name == "onnx.TensorProto":
    yield message
  for field, value in message.ListFields():
    if field.message_type is not None:
      for inner in [value] if hasattr(value, "ListFields") else value:  # Else a repeated field.
        yield from _tensors(inner)
