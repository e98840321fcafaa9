"""Downloads published files, such as checkpoints, once and atomically."""

import functools
import hashlib
import os
import pathlib
import re
import urllib.parse
from typing import Any

import pooch
import requests

from unseg_jax.errors import InvalidValue
from unseg_jax.storage import places
from unseg_jax.storage.cache import cache_folder


def fetch(
  url: str, folder: str | os.PathLike | None = None, sha256: str | None = None
) -> pathlib.Path:
  """Returns a local copy of a published file, downloading it only if there is none yet.

  A download that breaks off or gives another file than `sha256` names is tried twice more.

  Args:
    url: http or https.
    folder: where the copy is kept; `cache_folder()` if None. Its name begins with digits of
      the URL's hash, since many projects publish under the same file name.
    sha256: the file's SHA-256 in hexadecimal, or None to check only that it is complete.

  Raises:
    OSError: the server cannot be reached, refuses, or breaks off, or the copy cannot be written.
    ValueError: the URL is not http or https, or the file is not the one that `sha256` names.
  """
  parts = urllib.parse.urlsplit(url)
  if parts.scheme not in ("http", "https") or not parts.hostname:
    raise InvalidValue(
      f"cannot download {url}: expected a URL that begins with http:// or https://; for a file on "
      "this machine give its path"
    )
  name = re.sub(r"[^\w.-]", "_", urllib.parse.unquote(parts.path).rpartition("/")[2])
  name = f"{hashlib.sha256(url.encode()).hexdigest()[:12]}_{name[-100:]}"
  cache = pooch.create(
    path=cache_folder() if folder is None else places.path(folder),
    base_url="",
    registry={name: sha256},
    urls={name: url},
    retry_if_failed=2,
  )
  downloader = pooch.HTTPDownloader(
    progressbar=True,
    chunk_size=1 << 20,
    timeout=60,  # seconds without a byte
    # The bytes as they were published, not compressed for the way.
    headers={"User-Agent": "unseg-jax", "Accept-Encoding": "identity"},
    hooks={"response": functools.partial(_check, needs_length=sha256 is None)},
  )
  try:
    path = pathlib.Path(cache.fetch(name, downloader=downloader))
    path.touch()  # It was used: `cache.trim` keeps it longer.
    return path
  except OSError as error:  # Those of requests are OSErrors too.
    raise OSError(
      f"cannot download {url}: {_first_cause(error)}: check the address, the connection and the "
      "free space, and run again; or fetch the file in another way and give its path"
    ) from error
  except ValueError as error:
    raise InvalidValue(
      f"{url} gave a file with SHA-256 other than the published one ({error}): run again, or fetch "
      "it in another way and give the file's path"
    ) from error


def _check(response: requests.Response, needs_length: bool, **_: Any) -> None:
  """Refuses a response that is not a file, or that does not show whether it is complete."""
  if response.is_redirect:
    return
  if response.status_code != requests.codes.ok:
    # Pooch tries again after an error of requests: only a server in trouble may answer differently.
    error = requests.HTTPError if response.status_code >= 500 else OSError
    raise error(f"the server answered {response.status_code} {response.reason}, expected the file")
  if needs_length and response.raw.length_remaining is None and not response.raw.chunked:
    raise OSError(
      "the server does not tell the file's length, so that a broken connection would go unnoticed"
    )


def _first_cause(error: BaseException) -> BaseException:
  """What libraries wrapped in errors of their own: a refused connection, a body cut short."""
  while error.__context__:
    error = error.__context__
  return error
