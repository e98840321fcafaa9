"""Helpers of the tests of report and comparison: images, a workdir, and a browser."""

import html
import io
import json
import re
import shutil
import subprocess

import numpy as np
from PIL import Image

from unseg_jax.storage import whole_files

SECTIONS = [
  "results",
  "direction",
  "synthetic-set",
  "filters",
  "losses",
  "metrics",
  "predictions",
  "settings",
]
METRICS = {"accuracy": 0.95, "iou": 0.8, "f_beta": 0.9, "f_max": 0.91234}
CHROMIUM = next(
  filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None
)


def picture(height=64, width=64, seed=0):
  rng = np.random.default_rng(seed)
  rows, columns = np.mgrid[:height, :width] / [[[height]], [[width]]]
  smooth = np.stack([rows, columns, 1 - rows], axis=-1) * 200
  return (smooth + rng.integers(0, 50, smooth.shape)).astype(np.uint8)


def disc(height=64, width=64):
  rows, columns = np.mgrid[:height, :width]
  return np.hypot(rows / height - 0.5, columns / width - 0.5) < 0.3


def webp():
  frames = [Image.fromarray(picture(32, 96, seed)) for seed in range(3)]
  buffer = io.BytesIO()
  frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:], duration=100)
  return buffer.getvalue()


def write_config(folder, **changes):
  config = {
    "name": "faces",
    "seed": 0,
    "evaluate": {"reference": {"ECSSD": {"iou": 0.7}}},
    "report": {"pictures": [], "samples": 2},
  }
  whole_files.write_json(folder / "config.json", config | changes)


def browse(page, width, folder, *more_flags):
  """Opens a page in a frame of the given width; returns the browser's messages and a screenshot.

  A frame, because a browser's own window cannot be made as narrow as a phone.
  """
  height = 2000
  probe = """
    const page = frame.contentDocument, view = frame.contentWindow;
    const visible = e => e.getBoundingClientRect().height > 20;
    document.getElementById('result').textContent = JSON.stringify({
      sections: [...page.querySelectorAll('section')].filter(visible).map(e => e.id),
      images: page.images.length,
      shown: [...page.images].filter(visible).length,
      decoded: [...page.images].filter(e => e.complete && e.naturalWidth > 0).length,
      charts: [...page.querySelectorAll('svg')].filter(visible).length,
      width: view.innerWidth,
      content_width: page.documentElement.scrollWidth,
      requests: view.performance.getEntriesByType('resource').map(e => e.name),
    });
  """
  wrapper = folder / "wrapper.html"
  wrapper.write_text(
    f'''<!doctype html><meta charset="utf-8"><body style="margin:0"><script id="result"
    type="application/json"></script><script>function look(frame) {{ {probe} }}</script>
    <iframe style="border:0;width:{width}px;height:{height}px" onload="look(this)"
    srcdoc="{html.escape(page)}"></iframe>''',
    encoding="utf-8",
  )
  screenshot = folder / "screenshot.png"
  flags = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync --dump-dom"
  )
  done = subprocess.run(
    [
      CHROMIUM,
      *flags.split(),
      *more_flags,
      f"--user-data-dir={folder / 'profile'}",
      f"--window-size={max(width, 500)},{height}",
      f"--screenshot={screenshot}",
      wrapper.as_uri(),
    ],
    capture_output=True,
    text=True,
    timeout=300,
  )
  result = re.search(r'type="application/json">(.*?)</script>', done.stdout, flags=re.DOTALL)
  assert result and result[1], done.stderr
  with Image.open(screenshot) as image:
    return json.loads(result[1]), np.asarray(image.convert("RGB"))[:, :width]
