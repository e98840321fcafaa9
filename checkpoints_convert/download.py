"""Fetches published checkpoints: each once, whole or not at all, and resumed after a break."""

import fcntl
import hashlib
import http.client
import os
import pathlib
import re
import urllib.error
import urllib.parse
import urllib.request
from typing import BinaryIO

import tqdm

from unseg_jax.runtime import checkpoints, workdir

_CHUNK = 1 << 20
_TIMEOUT = 60  # seconds without a byte


def fetch(
  url: str, folder: str | os.PathLike | None = None, sha256: str | None = None
) -> pathlib.Path:
  """Returns a local copy of a published file, downloading it only if there is none yet.

  As long as it is incomplete the file is called `*.part`; a later call continues it if the server
  tells, by ETag or date, that it still publishes the same file, and starts anew otherwise.

  Args:
    url: http or https.
    folder: where the copy is kept; `workdir.cache_folder()` if None. Its name begins with digits of
      the URL's hash, since many projects publish under the same file name.
    sha256: the file's SHA-256 in hexadecimal, or None to check only that it is complete.

  Raises:
    OSError: the server cannot be reached, refuses, or breaks off.
    ValueError: the URL is not http or https, or the file is not the one that `sha256` names.
  """
  parts = urllib.parse.urlsplit(url)
  if parts.scheme not in ("http", "https") or not parts.hostname:
    raise ValueError(
      f"cannot download {url}: expected a URL that begins with http:// or https://; for a file on "
      "this machine give its path"
    )
  folder = workdir.cache_folder() if folder is None else pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  name = re.sub(r"[^\w.-]", "_", urllib.parse.unquote(parts.path).rpartition("/")[2])
  target = folder / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}_{name[-100:]}"
  if not target.exists():
    _complete(url, target, needs_length=sha256 is None)
  if sha256 is not None and (found := checkpoints.sha256(target)) != sha256.lower():
    target.unlink()
    raise ValueError(
      f"{url} gave a file with SHA-256 {found}, expected {sha256}: it was changed since, or on its "
      "way; the copy was deleted. Run again, or fetch it in another way and give the file's path"
    )
  return target


def _complete(url: str, target: pathlib.Path, needs_length: bool) -> None:
  """Downloads what is missing of `target.part` and gives it its final name."""
  part = target.with_name(target.name + ".part")
  version = target.with_name(target.name + ".version")  # which version `part` is the beginning of
  with open(part, "ab") as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise OSError(f"another process is downloading {part}: wait, then run again") from None
    if target.exists():  # another process has finished it meanwhile
      part.unlink(missing_ok=True)
      return
    try:
      _download(url, file, version, needs_length)
    except OSError:
      if not os.path.getsize(part):
        part.unlink()
        version.unlink(missing_ok=True)
      raise
    os.replace(part, target)
    version.unlink(missing_ok=True)


def _download(url: str, file: BinaryIO, version: pathlib.Path, needs_length: bool) -> None:
  """Completes a file, or raises an OSError and leaves in it what a later call can continue."""
  known = version.read_text() if version.exists() else ""
  response, done = _request(url, known, file.tell() if known else 0)
  with response:
    if not done:
      file.truncate(0)
      version.write_text(_version(response))  # only now that the old beginning is gone
    total = _total(response, done)
    if total is None and not response.chunked and needs_length:
      raise OSError(
        f"{url}: the server does not tell the file's length, so that a broken connection would go "
        "unnoticed: fetch the file in another way and give its path"
      )
    reason = _copy(response, file, done, total)
  received = os.path.getsize(file.name)
  if reason or received != (total or received):
    raise OSError(
      f"{url}: the download ended after {received} of {total or 'unknown'} bytes"
      f"{f' ({reason})' if reason else ''}; they are kept in {file.name}: run again to "
      + ("resume" if version.read_text() else "start anew, this server does not let it resume")
    )


def _request(url: str, version: str, done: int) -> tuple[http.client.HTTPResponse, int]:
  """Asks for a file from byte `done` on; returns the answer and from which byte on it is."""
  headers = {"User-Agent": "unseg-jax"}
  if done:
    headers |= {"Range": f"bytes={done}-", "If-Range": version}
  try:
    response = _open(url, headers)
  except urllib.error.HTTPError as error:
    response = error  # an answer too
  except (OSError, http.client.HTTPException) as error:
    raise OSError(
      f"cannot reach {url} ({getattr(error, 'reason', error)}): check the address and the "
      "connection, and run again"
    ) from error
  if response.status == http.HTTPStatus.OK:
    return response, 0
  if done and response.status == http.HTTPStatus.PARTIAL_CONTENT:
    start = response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
    if start and _version(response) == version:
      return response, done
  response.close()
  if done:  # perhaps only the range is refused, or the server overlooked If-Range
    return _request(url, "", 0)
  raise OSError(
    f"{url}: the server answered {response.status} {response.reason}, expected the file: check the "
    "address, or fetch the file in another way and give its path"
  )


def _open(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
  # Not `urlopen`, which would also follow a redirection to ftp://.
  opener = urllib.request.OpenerDirector()
  for handler in (
    urllib.request.ProxyHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPErrorProcessor,
    urllib.request.UnknownHandler,
  ):
    opener.add_handler(handler())
  return opener.open(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)


def _version(response: http.client.HTTPResponse) -> str:
  """What If-Range may name this version by: its strong ETag or its date, or '' without either."""
  etag = response.headers.get("ETag", "")
  return etag if etag.startswith('"') else response.headers.get("Last-Modified", "")


def _total(response: http.client.HTTPResponse, done: int) -> int | None:
  """The whole file's size in bytes, if the server tells it."""
  if done and (match := re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))):
    return int(match[1])
  return None if response.length is None else done + response.length


def _copy(
  response: http.client.HTTPResponse, file: BinaryIO, done: int, total: int | None
) -> Exception | None:
  """Appends a response's body to a file; returns what interrupted it, if anything did."""
  bar = tqdm.tqdm(
    desc=pathlib.Path(file.name).stem.partition("_")[2],
    total=total,
    initial=done,
    unit="B",
    unit_scale=True,
    mininterval=1.0,
    dynamic_ncols=True,
  )
  interruption = None
  with bar:
    try:
      while chunk := response.read(_CHUNK):
        file.write(chunk)
        bar.update(len(chunk))
    except (OSError, http.client.HTTPException) as error:
      interruption = error
    file.flush()
    os.fsync(file.fileno())
  return interruption
