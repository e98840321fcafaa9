"""Serves the page, by default for this machine only, and deletes all uploads at the end."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import Any

from unseg_jax.demo import html, limits
from unseg_jax.errors import MissingPackage
from unseg_jax.storage import places

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SESSIONS = 64  # Visitors whose images are kept; the least recent visitor's are dropped first.


@contextlib.contextmanager
def serve(runs: str, host: str, port: int) -> Iterator[Any]:
  """Serves the page within the context; yields the page, a `gradio.Blocks`.

  Args:
    runs: the folder of runs; it may be missing.
    host: the address to listen on.
    port: the port to listen on.

  Raises:
    ImportError: Gradio is not installed.
    OSError: the port is in use, or this machine does not have the address.
  """
  with tempfile.TemporaryDirectory(prefix="unseg_jax_demo_") as folder, _environment(folder):
    try:
      import gradio
    except ImportError as error:
      raise MissingPackage(
        f"the page needs Gradio, which cannot be imported ({error}). Install it with: "
        "pip install 'unseg-jax[demo]'"
      ) from error
    from unseg_jax.demo import page as layout

    page = layout.build(places.path(runs))
    # System fonts, because the browser would load those of Gradio's themes from another host.
    theme = gradio.themes.Default(
      font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")
    )
    page.launch(
      server_name=host,
      server_port=port,
      share=False,
      quiet=True,
      prevent_thread_lock=True,
      max_file_size=limits.MEGABYTES * 2**20,
      state_session_capacity=SESSIONS,
      # These would record images, count visitors, or start more servers.
      run_history=False,
      enable_monitoring=False,
      mcp_server=False,
      pwa=False,
      ssr_mode=False,
      footer_links=[],
      theme=theme,
      css=html.STYLE(),
    )
    try:
      yield page
    finally:
      page.close(verbose=False)


@contextlib.contextmanager
def _environment(folder: str) -> Iterator[None]:
  """Sets Gradio's environment variables: no telemetry, and this folder for its files."""
  values = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_TEMP_DIR": folder,
  }
  before = dict(os.environ)
  os.environ |= values
  try:
    yield
  finally:
    for name in values:
      del os.environ[name]
      if name in before:
        os.environ[name] = before[name]


def describe(host: str, port: int) -> str:
  """Returns the page's address, and a warning if other machines can open the page."""
  where = f"open http://{host if host in LOOPBACK else 'ADDRESS OF THIS MACHINE'}:{port}"
  if host in LOOPBACK:
    return f"{where}  (this machine only; Ctrl-C stops the server)"
  return (
    f"{where}\n"
    f"--host={host}: everybody who can reach this machine on port {port} can open the page, see "
    "the names of your runs, and use your processor. The page has no password, and images travel "
    "unencrypted. Ctrl-C stops the server."
  )
