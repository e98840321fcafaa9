"""A trained segmenter at work.

In: pictures of any size. Out: the probability of foreground. Open `segmenter.py` first: it runs
one picture; `batched.py` runs batches, over all devices. `segmenter_files.py` restores and saves a
segmenter, `onnx_files.py` runs an exported one, `refinement.py` fits masks to a picture's edges.
"""
