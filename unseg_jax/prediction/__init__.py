"""Batch prediction: what `python -m unseg_jax.predict` runs.

In: a segmenter, and images in folders or buckets. Out: masks and other requested files, and a
manifest with one row per image. Open `run.py` first: it reads, computes and encodes concurrently.
`plan.py` finds the images and names their outputs. `inputs.py` defines an image's identity.
`pictures.py` reads one image and writes its outputs, in threads or worker processes. `outputs.py`
encodes them. `manifest.py` records the results, and `resuming.py` decides which of them are still
valid, so that an interrupted run continues.
"""
