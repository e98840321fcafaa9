"""Stage 4 scores a segmenter on held-out synthetic pairs and on real images.

The input is a segmenter and images with masks. The output is each data set's metrics by name. Start
with `evaluate.py`. Images come from the paper's data sets (`benchmarks.py`, with the TFDS builders
of `builders/`), from folders (`folders.py`) or from TFDS (`tfds_source.py`). `metrics.py` has the
paper's metrics, and `saliency.py` those of the salient object literature.
"""
