"""The U-Net of tests/golden/unet.npz; its weights are derived, not stored."""

import pathlib
import zlib

import numpy as np

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "unet.npz")


def value(key, shape):
  """Returns the weights of the golden logits: random, but determined by their name."""
  draw = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF)
  if key.endswith("num_batches_tracked"):
    return np.zeros(shape, np.int64)
  x = draw.standard_normal(shape).astype(np.float32)
  if key.endswith("running_var"):
    return 0.5 + np.abs(x)
  if key.endswith(("running_mean", "bias")):
    return 0.1 * x
  if len(shape) == 1:
    return 1 + 0.1 * x
  return x * np.sqrt(2 / np.prod(shape[1:])).astype(np.float32)


def make_state_dict(divisor=1):
  """Returns upstream's state dict, with its channels divided."""
  state_dict = {}
  for entry in GOLDEN["keys"]:
    key, _, shape = str(entry).partition(":")
    shape = [int(size) for size in shape.split(",") if size]
    shape = tuple(size // divisor if size >= 64 else size for size in shape)
    state_dict[key] = value(key, shape)
  return state_dict
