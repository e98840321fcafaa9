"""Export of segmenters to other formats: `python -m unseg_jax.export`.

In: a segmenter. Out: a file, or a folder for a web server. Open `files.py` first. `to_onnx.py`
writes ONNX, `to_jax.py` StableHLO and TensorFlow Lite, and `to_web.py` a web page from `web/`.
"""

from unseg_jax.export.files import FILE_FORMATS, FORMATS, describe, export

__all__ = ["FILE_FORMATS", "FORMATS", "describe", "export"]
