"""A segmenter as a folder that any file server makes a page of: the browser alone segments.

The folder holds the page (`web/`), the ONNX file, and ONNX Runtime Web, which is fetched once from
where its authors publish it. Nothing in it asks another host for anything.
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
# What is taken of it, by what it is called here: not all servers know that *.mjs is JavaScript.
RUNTIME_FILES = {
  "ort.wasm.bundle.min.js": "package/dist/ort.wasm.bundle.min.mjs",
  "ort-wasm-simd-threaded.wasm": "package/dist/ort-wasm-simd-threaded.wasm",
}
MODEL = "segmenter.onnx"
PAGE = "index.html"


def write_folder(
  folder: Path, model: bytes, described: Mapping[str, str], runtime: str | os.PathLike | None = None
) -> None:
  """Writes the folder; its page comes last.

  Args:
    folder: `check_folder` lets it pass.
    model: the ONNX file.
    described: its metadata.
    runtime: the npm package onnxruntime-web of `RUNTIME_VERSION`, a `*.tgz` file; None fetches it
      into the cache, unless the cache has it.

  Raises:
    OSError: the package cannot be fetched, or something cannot be written.
    ValueError: `runtime`, or what was fetched, is another file.
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
      assert file is not None  # The package's SHA-256 says what it holds.
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
  """Raises a ValueError unless `folder` is new or holds only what an earlier export wrote."""
  if folder.exists() and not folder.is_dir():
    raise InvalidValue(f"--output={folder} is a file; expected a folder, or a new name")
  ours = {path.name for path in _sources()} | {*RUNTIME_FILES, MODEL}
  others = sorted({path.name for path in folder.iterdir()} - ours) if folder.exists() else []
  if others:
    raise InvalidValue(
      f"--output={folder} holds other things, such as {others[0]}; expected a new or an empty "
      "folder, or one that an earlier export wrote"
    )


def fetch_runtime() -> Path:
  """Returns the npm package onnxruntime-web, fetched into the cache unless the cache has it.

  Raises:
    OSError: it cannot be fetched; says how to go on without a network.
    ValueError: the server gave another file.
  """
  try:
    return download.fetch(RUNTIME_URL, sha256=RUNTIME_SHA256)
  except (OSError, ValueError) as error:
    raise type(error)(
      f"{error}. Where there is no network, bring onnxruntime-web-{RUNTIME_VERSION}.tgz, which "
      f"`npm pack onnxruntime-web@{RUNTIME_VERSION}` writes, and give --runtime=FILE.tgz"
    ) from error


def check_runtime(path: str | os.PathLike) -> Path:
  """Returns the path of the npm package onnxruntime-web.

  Raises:
    OSError: it cannot be read.
    ValueError: it is another file.
  """
  path = places.path(path)
  if (digest := pooch.file_hash(path)) != RUNTIME_SHA256:
    raise InvalidValue(
      f"--runtime={path} is not onnxruntime-web {RUNTIME_VERSION} as published: its SHA-256 is "
      f"{digest}, expected {RUNTIME_SHA256}; `npm pack onnxruntime-web@{RUNTIME_VERSION}` gets it"
    )
  return path


def _sources() -> list[Path]:
  """The files of the page, as they stand in the package."""
  return sorted((Path(str(resources.files("unseg_jax"))) / "export" / "web").iterdir())
