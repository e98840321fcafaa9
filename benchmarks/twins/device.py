"""The device of the twins."""

import importlib.util
import sys

import jax


def choose(wanted: bool) -> tuple[str | None, str]:
  """Returns the twins' device, or None if they cannot run, and a description."""
  if not wanted:
    return None, "PyTorch not wanted"
  if importlib.util.find_spec("torch") is None:
    return None, "PyTorch not installed"
  import torch

  if jax.default_backend() == "cpu":
    return "cpu", f"PyTorch {torch.__version__} on cpu"
  if jax.default_backend() != "gpu" or not torch.cuda.is_available():
    return None, f"PyTorch {torch.__version__} cannot use JAX's {jax.default_backend()}"
  # As in XLA by default: float32 products in TF32, and autotuned convolutions.
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
  torch.backends.cudnn.benchmark = True
  return "cuda", f"PyTorch {torch.__version__} on cuda, channels_last"


def wait() -> None:
  """Waits until the twins' device has finished."""
  torch = sys.modules["torch"]
  if torch.cuda.is_available():
    torch.cuda.synchronize()
