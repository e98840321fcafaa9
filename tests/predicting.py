"""Calls of `predict` on folders of small images."""

import contextlib
import io
import json

import numpy as np
from PIL import Image

from unseg_jax import predict
from unseg_jax.prediction import manifest


def call(photos, output, run, **options):
  """Calls `predict`; returns its status, its stderr, and the manifest's rows."""
  said = io.StringIO()
  with contextlib.redirect_stderr(said):
    status = predict.predict(str(run), str(photos), str(output), False, **options)
  rows = [json.loads(line) for line in (output / manifest.NAME).read_bytes().splitlines()]
  return status, said.getvalue(), {row["input"]: row for row in rows}


def save(path, size=(9, 6), seed=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
  Image.fromarray(values).save(path)
