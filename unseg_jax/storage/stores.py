"""Object stores, such as buckets, with retries after transient errors.

Objects are written atomically. fsspec opens a store: obstore for Amazon S3, gcsfs for Google Cloud
Storage. obstore's retries are off; all of its retries are made and logged here. gcsfs retries
silently for the first half minute; longer outages are handled here.
"""

import contextlib
import dataclasses
import errno
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unseg_jax.errors import InvalidValue, MissingPackage
from unseg_jax.storage import temporary_names
from unseg_jax.storage.cache import cache_folder

if TYPE_CHECKING:
  import fsspec
  import tenacity

# A store that fails for longer than this ends the run.
PATIENCE_SECONDS = 300
LONGEST_PAUSE_SECONDS = 20
LONGEST_NAME = 1024  # Bytes of UTF-8; the limit of both Amazon and Google.
# The lease of a folder; see `locks`. Listings leave it out.
LOCK_NAME = ".unseg_jax.lock"
_LOCK = f"/{LOCK_NAME}"
EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3", "s3a": "s3"}

log = logging.getLogger(__name__)


class Entry(NamedTuple):
  """An object's size in bytes, and a tag that changes with its contents."""

  size: int
  tag: str


@dataclasses.dataclass(frozen=True)
class Store:
  """The objects of a place, by their relative names. Transient errors are retried.

  Attributes:
    url: the place's URL, without a slash at its end.
    files: fsspec's file system.
    root: the place's path in `files`.
  """

  url: str
  files: "fsspec.AbstractFileSystem"
  root: str

  def list(self, prefix: str = "") -> dict[str, Entry]:
    """Lists the objects below the place, or below its subfolder `prefix`."""
    start = f"{self.root}/{prefix}".rstrip("/")
    try:
      objects = self.patiently("list", prefix, lambda: self.files.find(start, detail=True))
    except FileNotFoundError:
      return {}
    return {
      name.removeprefix(f"{self.root}/"): Entry(info["size"], _tag(info))
      for name, info in objects.items()
      if name.startswith(f"{start}/") and info["type"] == "file" and not name.endswith(_LOCK)
    }

  def entry(self, name: str = "") -> Entry | None:
    """Looks up an object; `""` is the place itself. Returns None if it does not exist."""
    path = f"{self.root}/{name}".rstrip("/")
    if "/" not in path:
      return None  # A bucket, which obstore would treat as an object without a name.
    try:
      info = self.patiently("look up", name, lambda: self.files.info(path))
    except FileNotFoundError:
      return None
    return Entry(info["size"], _tag(info)) if info["type"] == "file" else None

  def upload(self, path: Path, name: str) -> Entry:
    """Uploads a file atomically."""
    target = f"{self.root}/{name}"
    size = path.stat().st_size

    def put() -> Entry:
      self.files.put_file(str(path), target)
      entry = self.entry(name)
      if entry is None or entry.size != size:
        raise ConnectionError(f"{entry.size if entry else 0} of {size} bytes arrived")
      return entry

    return self.patiently("write", name, put)

  def download(self, name: str, path: Path, size: int) -> None:
    """Downloads an object to a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_names.beside(path)
    source = f"{self.root}/{name}".rstrip("/")

    def get():
      self.files.get_file(source, str(temporary))
      if temporary.stat().st_size != size:
        raise ConnectionError(f"got {temporary.stat().st_size} of {size} bytes")

    try:
      self.patiently("read", name, get)
      os.replace(temporary, path)
    finally:
      temporary.unlink(missing_ok=True)

  def read(self, name: str) -> bytes:
    """Returns an object's contents."""
    return self.patiently("read", name, lambda: self.files.cat_file(f"{self.root}/{name}"))

  def remove(self, name: str) -> None:
    """Removes an object if it exists."""
    with contextlib.suppress(FileNotFoundError):
      self.patiently("remove", name, lambda: self.files.rm_file(f"{self.root}/{name}"))

  def patiently(self, what: str, name: str, call: Callable[[], Any]) -> Any:
    """Calls a function and retries it, with growing pauses, after transient errors.

    Args:
      what: what the call does, for messages, such as "read".
      name: the object that it acts on; `""` for the place itself.
      call: the function; it may be called several times.

    Raises:
      FileNotFoundError, PermissionError: the object or bucket does not exist, or access is denied.
      OSError: the store did not respond for `PATIENCE_SECONDS`.
    """
    import tenacity  # Imported here, as others in this file: local files do not need them.

    where = f"{self.url}/{name}".rstrip("/")

    def announce(state: "tenacity.RetryCallState") -> None:
      if state.outcome and (error := state.outcome.exception()):
        reason, pause = _first_line(error), state.upcoming_sleep
        log.warning("%s: could not %s (%s); retrying in %.1f s", where, what, reason, pause)

    retrying = tenacity.Retrying(
      retry=tenacity.retry_if_exception(_may_pass),
      stop=tenacity.stop_after_delay(PATIENCE_SECONDS),
      wait=tenacity.wait_random_exponential(multiplier=0.5, max=LONGEST_PAUSE_SECONDS),
      before_sleep=announce,
      reraise=True,
    )
    try:
      return retrying(call)
    except FileNotFoundError:
      raise
    except Exception as error:
      if _is_missing(error):
        raise FileNotFoundError(f"{where}: no such object") from error
      if _may_pass(error):
        raise OSError(
          f"{where}: could not {what} for {PATIENCE_SECONDS} s ({_first_line(error)}). Finished "
          f"work is saved in {cache_folder() / 'places'} on this machine. Once the store responds, "
          "run the same command again: it uploads that work and continues."
        ) from error
      raise _explained(error, where, what) from error

  def check_name(self, name: str) -> None:
    """Checks that stores accept the name of an object.

    Raises:
      OSError: the name is too long or not valid Unicode.
    """
    path = f"{self.root}/{name}".partition("/")[2]
    try:
      length = len(path.encode())
    except UnicodeEncodeError as error:
      raise OSError(
        errno.EILSEQ, "the name of an object must be valid Unicode", f"{self.url}/{name}"
      ) from error
    if length > LONGEST_NAME:
      raise OSError(
        errno.ENAMETOOLONG,
        f"the name of an object may have at most {LONGEST_NAME} bytes, but this one has {length}",
        f"{self.url}/{name}",
      )


def _tag(info: Mapping[str, Any]) -> str:
  keys = ("etag", "e_tag", "ETag", "generation", "mtime", "created", "last_modified")
  return next((str(info[key]) for key in keys if info.get(key)), "")


def _first_line(error: BaseException) -> str:
  return next(iter(f"{type(error).__name__}: {error}".strip().splitlines()))[:200]


def _status(error: BaseException) -> int | None:
  """Returns the HTTP status of an error of any client, or None."""
  for name in ("code", "status"):
    value = getattr(error, name, None)
    if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()):
      return int(value)
  named = re.search(r"status code: (\d{3})", str(error))
  return int(named.group(1)) if named else None


def _is_missing(error: BaseException) -> bool:
  """Whether an error is obstore's NotFoundError, which is not an OSError."""
  kind = type(error)
  return kind.__module__.partition(".")[0] == "obstore" and kind.__name__ == "NotFoundError"


def _may_pass(error: BaseException) -> bool:
  """Whether an error is transient: a connection reset, a timeout, status 429, 503 and the like."""
  if (status := _status(error)) is not None:
    return status in (408, 429) or status >= 500
  package = type(error).__module__.partition(".")[0]
  if package == "obstore":  # It has one type for all errors other than 404 and denied access.
    return "Error performing" in str(error) and "credential" not in str(error)
  short = (ConnectionError, TimeoutError)
  return isinstance(error, short) or package in ("aiohttp", "requests", "urllib3")


def _explained(error: Exception, where: str, what: str) -> Exception:
  status = _status(error)
  refused = status in (401, 403) or re.search("Forbidden|[Cc]redential", str(error))
  if refused or isinstance(error, PermissionError) or "Refresh" in type(error).__name__:
    return PermissionError(
      f"{where}: not allowed to {what} ({_first_line(error)}). Check the credentials: for gs:// "
      "`gcloud auth application-default login`, or GOOGLE_APPLICATION_CREDENTIALS, or the "
      "machine's service account; for s3:// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
      "`aws configure`."
    )
  if status == 404:
    return FileNotFoundError(f"{where}: no such bucket ({_first_line(error)})")
  known = isinstance(error, OSError | ValueError)
  return error if known else OSError(f"{where}: could not {what} ({_first_line(error)})")


def open_store(url: str) -> Store:
  """Opens a place. The place need not exist yet, but its bucket must.

  Raises:
    ValueError: the scheme is unknown.
    ImportError: the scheme needs a package that is not installed.
    FileNotFoundError, PermissionError: the bucket does not exist, or listing it is denied.
  """
  scheme = url.partition("://")[0].lower()
  url = url.rstrip("/")
  try:
    files = _file_system(scheme)
  except ImportError as error:
    extra = EXTRAS.get(scheme)
    command = f'pip install "unseg-jax[{extra}]"' if extra else "the package in parentheses"
    raise MissingPackage(f"{url} cannot be opened ({error}); install it: {command}") from error
  except ValueError as error:
    raise InvalidValue(
      f"{url}: the scheme {scheme!r} is not known; expected a local path, or a URL such as "
      "gs://BUCKET/RUN or s3://BUCKET/RUN"
    ) from error
  root = url.partition("://")[2] if scheme in EXTRAS else files._strip_protocol(url)
  store = Store(url, files, root)
  if scheme in EXTRAS:
    bucket = root.partition("/")[0]
    try:  # Lists a folder that does not exist, since the listing of a bucket may be long.
      store.patiently("list", "", lambda: files.find(f"{bucket}/.unseg_jax/nothing"))
    except FileNotFoundError as error:
      raise FileNotFoundError(
        f"{url}: no bucket {bucket!r}; create it, or correct the name"
      ) from error
  return store


def _file_system(scheme: str) -> "fsspec.AbstractFileSystem":
  if scheme in EXTRAS:
    return _s3() if EXTRAS[scheme] == "s3" else _gcs()
  import fsspec

  return fsspec.filesystem(scheme, use_listings_cache=False)


def _gcs() -> "fsspec.AbstractFileSystem":
  """Opens gcsfs, which makes up to six attempts of its own within half a minute."""
  # With support for hierarchical namespaces, gcsfs would first request each bucket's type.
  os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
  try:
    from gcsfs.core import GCSFileSystem
  except ImportError as error:
    raise MissingPackage(f"gs:// needs gcsfs: {error}") from error
  # gcsfs logs a traceback whenever it gives up. The error that it raises is logged here instead.
  logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
  return GCSFileSystem(use_listings_cache=False, skip_instance_cache=True)


def _s3() -> "fsspec.AbstractFileSystem":
  """Opens obstore; s3fs pins a version of botocore that conflicts with other packages."""
  try:
    from obstore.auth.boto3 import Boto3CredentialProvider
    from obstore.fsspec import FsspecStore
  except ImportError as error:
    raise MissingPackage(f"s3:// needs obstore and boto3: {error}") from error
  endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
  options: dict[str, Any] = {
    "client_options": {
      "timeout": "600s",
      "connect_timeout": "10s",
      "allow_http": endpoint.startswith("http://"),
    },
    "retry_config": {"max_retries": 0},  # `patiently` retries.
  }
  if endpoint:
    options["config"] = {"endpoint": endpoint}
  try:
    credentials = Boto3CredentialProvider()
  except ValueError as error:
    raise PermissionError(
      f"s3:// has no credentials ({error}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
      "run `aws configure`"
    ) from error

  class FlatStore(FsspecStore):
    """Lists everything below a folder in one request, not in one request per subfolder."""

    def find(self, path, **options):
      bucket, _, prefix = path.partition("/")
      return {
        f"{bucket}/{entry['path']}": {**entry, "type": "file"}
        for batch in self._construct_store(bucket).list(prefix)
        for entry in batch
      }

  return FlatStore("s3", credential_provider=credentials, **options)
