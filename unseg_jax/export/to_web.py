"""Exports a segmenter to a static page that segments in the browser; images never leave it.

The folder contains the page (`web/`), the ONNX file and ONNX Runtime Web, which is downloaded once
from its publisher. Any file server can serve it. The page makes no requests to other hosts.
"""

import os
import tarfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import jinja2
import pooch

from unseg_jax.errors import InvalidValue
from unseg_jax.inference.onnx_files import IMAGE_SIZE_KEY
from unseg_jax.storage import download, places, whole_files

RUNTIME_VERSION = "1.30.0"
RUNTIME_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
RUNTIME_URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{RUNTIME_VERSION}.tgz"
# Name here -> file of the package. Renamed, since some servers do not serve *.mjs as JavaScript.
RUNTIME_FILES = {
  "ort.wasm.bundle.min.js": "package/dist/ort.wasm.bundle.min.mjs",
  "ort-wasm-simd-threaded.wasm": "package/dist/ort-wasm-simd-threaded.wasm",
}
MODEL = "segmenter.onnx"
PAGE = "index.html"


def write_folder(
  folder: Path, model: bytes, described: Mapping[str, str], runtime: str | os.PathLike | None = None
) -> None:
  """Writes the folder; the page itself is written last.

  Args:
    folder: a folder that passes `check_folder`.
    model: the contents of the ONNX file.
    described: its metadata.
    runtime: the npm package onnxruntime-web of `RUNTIME_VERSION`, a `*.tgz` file. None takes it
      from the cache, or downloads it into the cache.

  Raises:
    OSError: the package cannot be downloaded, or a file cannot be written.
    ValueError: `runtime`, or the downloaded file, is not this package.
  """
  package = fetch_runtime() if runtime is None else check_runtime(runtime)
  sources = {path.name: path for path in _sources()}
  page = jinja2.Template(
    sources.pop(PAGE).read_text("utf-8"), autoescape=True, undefined=jinja2.StrictUndefined
  )
  contents = {name: path.read_bytes() for name, path in sources.items()}
  with tarfile.open(package) as archive:
    for name, member in RUNTIME_FILES.items():
      file = archive.extractfile(member)
      assert file is not None  # The SHA-256 was checked, so the contents are known.
      contents[name] = file.read()
  contents[MODEL] = model
  contents[PAGE] = page.render(
    source=described["source"],
    license=described.get("license"),
    image_size=described[IMAGE_SIZE_KEY],
    unseg_jax_version=described["unseg_jax_version"],
    runtime_version=RUNTIME_VERSION,
  ).encode()
  for name, data in contents.items():
    whole_files.write_bytes(folder / name, data)


def check_folder(folder: Path) -> None:
  """Raises a ValueError unless `folder` is new or contains only files of an earlier export."""
  if folder.exists() and not folder.is_dir():
    raise InvalidValue(f"--output={folder} is a file; expected a folder, or a new name")
  ours = {path.name for path in _sources()} | {*RUNTIME_FILES, MODEL}
  others = sorted({path.name for path in folder.iterdir()} - ours) if folder.exists() else []
  if others:
    raise InvalidValue(
      f"--output={folder} contains other files, such as {others[0]}; expected a new or empty "
      "folder, or one of an earlier export"
    )


def fetch_runtime() -> Path:
  """Returns the npm package onnxruntime-web from the cache, or downloads it into the cache.

  Raises:
    OSError: the download failed; the message explains how to export without a network.
    ValueError: the server sent another file.
  """
  try:
    return download.fetch(RUNTIME_URL, sha256=RUNTIME_SHA256)
  except (OSError, ValueError) as error:
    raise type(error)(
      f"{error}. Without a network, use `npm pack onnxruntime-web@{RUNTIME_VERSION}` on another "
      f"machine, copy onnxruntime-web-{RUNTIME_VERSION}.tgz here, and pass --runtime=FILE.tgz"
    ) from error


def check_runtime(path: str | os.PathLike) -> Path:
  """Checks that a file is the npm package onnxruntime-web; returns its path.

  Raises:
    OSError: the file cannot be read.
    ValueError: it is another file.
  """
  path = places.path(path)
  if (digest := pooch.file_hash(path)) != RUNTIME_SHA256:
    raise InvalidValue(
      f"--runtime={path} is not onnxruntime-web {RUNTIME_VERSION} as published: its SHA-256 is "
      f"{digest}, expected {RUNTIME_SHA256}; run `npm pack onnxruntime-web@{RUNTIME_VERSION}`"
    )
  return path


def _sources() -> list[Path]:
  """Returns the page's files in this package."""
  return sorted((Path(str(resources.files("unseg_jax"))) / "export" / "web").iterdir())
