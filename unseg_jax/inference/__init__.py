"""A trained segmenter at work.

In: pictures of any size. Out: the probability of foreground. Open `segmenter.py` first: it runs
one picture; `batched.py` runs batches, over all devices. `views.py` makes what the network sees of
a picture, and the answer of its logits. `segmenter_files.py` restores and saves a segmenter,
`onnx_files.py` runs an exported one, `refinement.py` fits masks to a picture's edges.
"""
