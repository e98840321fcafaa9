"""Serves the page: on this machine alone by default, and with nothing left behind."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import Any

from unseg_jax.demo import html, limits
from unseg_jax.errors import MissingPackage
from unseg_jax.storage import places

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SESSIONS = 64  # Whose pictures are held at most; the least recent one's are let go first.


@contextlib.contextmanager
def serve(runs: str, host: str, port: int) -> Iterator[Any]:
  """Serves the page while the context lasts; yields it, a `gradio.Blocks`.

  Args:
    runs: the folder of runs to choose from; it may be missing.
    host: the address to listen on.
    port: the port to listen on.

  Raises:
    ImportError: Gradio is not installed.
    OSError: the port is taken, or this machine has no such address.
  """
  with tempfile.TemporaryDirectory(prefix="unseg_jax_demo_") as folder, _environment(folder):
    try:
      import gradio
    except ImportError as error:
      raise MissingPackage(
        f"the page needs Gradio, which cannot be imported ({error}); install it with: "
        "pip install 'unseg-jax[demo]'"
      ) from error
    from unseg_jax.demo import page as layout

    page = layout.build(places.path(runs))
    # The system's fonts: those that Gradio's themes name would come from elsewhere.
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
      # What would record pictures, count visitors, or start more servers.
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
  """Sets what Gradio reads: that it tells nobody of itself, and where it keeps files."""
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
  """Says where the page is, and what it means where others can reach it."""
  where = f"open http://{host if host in LOOPBACK else 'ADDRESS OF THIS MACHINE'}:{port}"
  if host in LOOPBACK:
    return f"{where}  (only this machine can; Ctrl-C ends it)"
  return (
    f"{where}\n"
    f"--host={host}: everybody who can reach this machine on port {port} can open the page, sees "
    "the names of your runs, and uses your processor. There is no password, and pictures travel "
    "unencrypted. Ctrl-C ends it."
  )
