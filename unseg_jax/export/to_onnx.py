"""Exports the U-Net to ONNX, which runs on phones, in browsers and from other languages.

The network has only 13 kinds of operations, so they are written directly, without a converter.
Batch norms are folded into the convolutions before them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from unseg_jax.array_types import AnyArray, Float
from unseg_jax.inference.onnx_files import IMAGES, LOGITS, PROBABILITY, library
from unseg_jax.segmentation import unet

OPSET, IR_VERSION = 17, 8  # Both are of 2022, so that older runtimes read the file.
EPSILON = 1e-5  # The epsilon of the batch norms of `unet.Block`.


@dataclasses.dataclass
class _Graph:
  """A graph under construction, of `onnx.NodeProto` and `onnx.TensorProto`."""

  nodes: list[Any] = dataclasses.field(default_factory=list)
  weights: list[Any] = dataclasses.field(default_factory=list)

  def add(self, operation: str, *inputs: str, result: str = "", **attributes: Any) -> str:
    """Adds an operation; returns the name of its result."""
    result = result or f"{operation.lower()}_{len(self.nodes)}"
    node = library("onnx.helper").make_node(operation, inputs, [result], result, **attributes)
    self.nodes.append(node)
    return result

  def hold(self, values: Any, name: str | None = None) -> str:
    """Adds an array; returns its name."""
    name = name or f"constant_{len(self.weights)}"
    # ONNX ignores strides, so transposed views are copied into C order.
    array = np.ascontiguousarray(values) if np.ndim(values) else np.asarray(values)
    self.weights.append(library("onnx.numpy_helper").from_array(array, name))
    return name


def onnx_bytes(variables: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
  """Returns the ONNX file of a U-Net, including its normalisation.

  The input `images` is `[N, H, W, 3]` uint8, with H and W of at least 2 ** (levels - 1). The
  outputs are `logits` `[N, H, W]` float32 and their sigmoid, `probability` `[N, H, W]` float32, of
  foreground. Equal weights and metadata give equal bytes.

  Args:
    variables: `params` and `batch_stats` of a `unet.Unet`.
    metadata: the file's metadata.

  Raises:
    ImportError: `onnx` is not installed.
  """
  onnx = library("onnx")
  graph = _Graph()
  _write_unet(graph, variables)
  helper, types = onnx.helper, onnx.TensorProto
  size = ["N", "H", "W"]
  model = helper.make_model(
    helper.make_graph(
      graph.nodes,
      "unet",
      [helper.make_tensor_value_info(IMAGES, types.UINT8, [*size, 3])],
      [helper.make_tensor_value_info(name, types.FLOAT, size) for name in (PROBABILITY, LOGITS)],
      graph.weights,
    ),
    opset_imports=[helper.make_opsetid("", OPSET)],
    ir_version=IR_VERSION,
    producer_name="unseg-jax",
  )
  helper.set_model_props(model, dict(metadata))
  onnx.checker.check_model(model, full_check=True)
  return model.SerializeToString(deterministic=True)


def _write_unet(graph: _Graph, variables: Mapping[str, Any]) -> None:
  """Writes the operations of `Segmenter.logits` and `unet.Unet.__call__`, in `[N, C, H, W]`."""
  params = variables["params"]
  x = graph.add("Transpose", IMAGES, perm=[0, 3, 1, 2])
  x = graph.add("Cast", x, to=library("onnx").TensorProto.FLOAT)
  x = graph.add("Div", x, graph.hold(np.float32(127.5)))
  x = graph.add("Sub", x, graph.hold(np.float32(1)))
  x = _block(graph, variables, "inc", x)
  skips = []
  for level in unet.levels(params, "down"):
    skips.append(x)
    x = graph.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = _block(graph, variables, level, x)
  doubled = graph.hold(np.array([1, 1, 2, 2], np.float32), "doubled")
  for level in unet.levels(params, "up"):
    x = graph.add(
      "Resize", x, "", doubled, mode="linear", coordinate_transformation_mode="align_corners"
    )
    skip = skips.pop()
    x = graph.add("Concat", skip, _pad_to(graph, x, skip), axis=1)
    x = _block(graph, variables, level, x)
  # The softmax of two logits is the sigmoid of their difference, which is linear in x.
  kernel, bias = (np.asarray(params["out"][name]) for name in ("kernel", "bias"))
  x = _convolution(graph, "out", x, kernel[..., 1:] - kernel[..., :1], bias[1:] - bias[:1])
  graph.add("Squeeze", x, graph.hold(np.array([1], np.int64)), result=LOGITS)
  graph.add("Sigmoid", LOGITS, result=PROBABILITY)


def _block(graph: _Graph, variables: Mapping[str, Any], level: str, x: str) -> str:
  """Adds two times: 3 x 3 convolution, batch norm, ReLU."""
  params, statistics = (variables[name][level] for name in ("params", "batch_stats"))
  for i in (1, 2):
    conv, norm, running = params[f"conv_{i}"], params[f"norm_{i}"], statistics[f"norm_{i}"]
    scale = norm["scale"] / np.sqrt(running["var"] + EPSILON)
    bias = (conv["bias"] - running["mean"]) * scale + norm["bias"]
    x = _convolution(graph, f"{level}/conv_{i}", x, np.asarray(conv["kernel"] * scale), bias)
    x = graph.add("Relu", x)
  return x


def _convolution(
  graph: _Graph,
  name: str,
  x: str,
  kernel: Float[np.ndarray, "height width c_in c_out"],
  bias: Float[AnyArray, " c_out"],
) -> str:
  """Adds a convolution that keeps the size. The kernel's height and width are odd."""
  kernel_name = graph.hold(kernel.transpose(3, 2, 0, 1), f"{name}/kernel")
  bias_name = graph.hold(np.asarray(bias), f"{name}/bias")
  before = [side // 2 for side in kernel.shape[:2]]
  return graph.add("Conv", x, kernel_name, bias_name, pads=before * 2)


def _pad_to(graph: _Graph, x: str, like: str) -> str:
  """Pads as `unet.pad_to` does: adds a row or column of zeros at the end where `like` is odd."""
  ours, theirs = (graph.add("Shape", name, start=2, end=4) for name in (x, like))
  none = graph.hold(np.zeros(6, np.int64))
  return graph.add("Pad", x, graph.add("Concat", none, graph.add("Sub", theirs, ours), axis=0))
