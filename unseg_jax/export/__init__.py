"""Segmenters for programs other than this one: `python -m unseg_jax.export`.

In: a segmenter. Out: a file, or a folder for a web server. Open `files.py` first; `to_onnx.py`,
`to_jax.py` (StableHLO and TensorFlow Lite) and `to_web.py` (a page, from `web/`) write one format
each.
"""

from unseg_jax.export.files import FILE_FORMATS, FORMATS, describe, export

__all__ = ["FILE_FORMATS", "FORMATS", "describe", "export"]
