"""Describes the machine; measures its peak rates of matrix products and memory copies."""

import importlib.metadata
import platform

import jax
import jax.numpy as jnp

from on_device import rates
from on_device.rows import NotMeasured, Report

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "torch")
# Name -> type and precision of the matrix product.
PRODUCTS = {
  "float32": ("float32", "highest"),
  "tf32": ("float32", "tensorfloat32"),
  "float32, default precision": ("float32", None),
  "bfloat16": ("bfloat16", None),
}


def run(report: Report, smoke: bool) -> None:
  """Writes versions, devices and peak rates."""
  for package in PACKAGES:
    report.attempt(package, version, report, package)
  report.add("python", platform.python_version(), "version")
  report.attempt("devices", devices, report)
  report.attempt("memory", memory, report)
  for name, (dtype, precision) in PRODUCTS.items():
    report.attempt(f"matrix product, {name}", product, report, name, dtype, precision, smoke)
  report.attempt("copy", copy, report, smoke)


def version(report: Report, package: str) -> None:
  """Writes a package's version."""
  try:
    report.add(package, importlib.metadata.version(package), "version")
  except importlib.metadata.PackageNotFoundError:
    raise NotMeasured(f"needs {package}") from None


def devices(report: Report) -> None:
  """Writes the kind, number and backend of the devices."""
  first = jax.devices()[0]
  report.add("device", first.device_kind, "kind", f"backend {jax.default_backend()}")
  report.add("devices", jax.device_count(), "devices")
  words = " ".join(str(getattr(first.client, "platform_version", "unknown")).split())
  report.add("backend", words, "version")


def memory(report: Report) -> None:
  """Writes the memory of the first device that JAX may use."""
  stats = jax.devices()[0].memory_stats() or {}
  if "bytes_limit" not in stats:
    raise NotMeasured("this backend does not report its memory")
  report.add("memory", stats["bytes_limit"] / rates.GIB, "GiB", "that JAX may use")


def product(report: Report, name: str, dtype: str, precision: str | None, smoke: bool) -> None:
  """Measures a large matrix product."""
  rate = rates.product_rate(dtype, precision, smoke)
  report.add(f"matrix product, {name}", rate / 1e12, "TFLOP/s", f"precision {precision}")


def copy(report: Report, smoke: bool) -> None:
  """Measures the bandwidth of reading and writing memory."""
  size = 2**20 if smoke else 2**28
  array = jnp.zeros(size, jnp.float32)
  add = jax.jit(lambda x: x + 1)
  seconds, _ = rates.seconds_of(lambda: add(array), smoke)
  note = f"{array.nbytes / rates.GIB:.2g} GiB read and as much written"
  report.add("copy", 2 * array.nbytes / seconds / 1e9, "GB/s", note)
