"""Downloads published files, such as checkpoints; each is downloaded once, atomically."""

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
  """Returns a local copy of a published file; downloads it if no copy exists.

  A download is retried twice if it is interrupted or if the file does not match `sha256`.

  Args:
    url: an http or https URL.
    folder: the folder for the copy; `cache_folder()` if None. The copy's name begins with digits
      of the URL's hash, since many projects use the same file names.
    sha256: the file's SHA-256 in hexadecimal, or None to check only that the file is complete.

  Raises:
    OSError: the server is unreachable, refuses the request or interrupts the transfer, or the copy
      cannot be written.
    ValueError: the URL is not http or https, or the file does not match `sha256`.
  """
  parts = urllib.parse.urlsplit(url)
  if parts.scheme not in ("http", "https") or not parts.hostname:
    raise InvalidValue(
      f"cannot download {url}: expected a URL that begins with http:// or https://; for a local "
      "file give its path"
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
    timeout=60,  # Seconds without data.
    # The published bytes, without compression in transit.
    headers={"User-Agent": "unseg-jax", "Accept-Encoding": "identity"},
    hooks={"response": functools.partial(_check, needs_length=sha256 is None)},
  )
  try:
    path = pathlib.Path(cache.fetch(name, downloader=downloader))
    path.touch()  # `cache.trim` removes files by their last use.
    return path
  except OSError as error:  # Exceptions of requests are OSErrors too.
    raise OSError(
      f"cannot download {url}: {_first_cause(error)}: check the address, the connection and the "
      "free space, and run again; or download the file by other means and give its path"
    ) from error
  except ValueError as error:
    raise InvalidValue(
      f"{url} does not have the published SHA-256 ({error}): run again, or download it "
      "by other means and give its path"
    ) from error


def _check(response: requests.Response, needs_length: bool, **_: Any) -> None:
  """Refuses a response that is not a file, or whose length is needed and unknown."""
  if response.is_redirect:
    return
  if response.status_code != requests.codes.ok:
    # Pooch retries after an error of requests, which makes sense for server errors only.
    error = requests.HTTPError if response.status_code >= 500 else OSError
    raise error(f"the server answered {response.status_code} {response.reason}, expected a file")
  if needs_length and response.raw.length_remaining is None and not response.raw.chunked:
    raise OSError(
      "the server does not send the file's length, so an interrupted transfer would go unnoticed"
    )


def _first_cause(error: BaseException) -> BaseException:
  """Returns the innermost error, such as a refused connection, that libraries have wrapped."""
  while error.__context__:
    error = error.__context__
  return error
