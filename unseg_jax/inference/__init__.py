"""Inference with a trained segmenter.

In: images of any size. Out: the probability of foreground. Open `segmenter.py` first: it runs one
image. `batched.py` runs batches over all devices. `views.py` turns an image into network inputs,
and the network's logits into a probability map. `segmenter_files.py` restores and saves a
segmenter, `onnx_files.py` runs an exported one, and `refinement.py` fits masks to image edges.
"""
