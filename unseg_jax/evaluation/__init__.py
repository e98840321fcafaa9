"""Stage 4: how good a segmenter is, on held-out synthetic pairs and on real pictures.

In: a segmenter, and pictures with masks. Out: each data set's metrics by name.
Open `evaluate.py` first. Pictures come from the paper's data sets (`benchmarks.py`, with the TFDS
builders of `builders/`), from folders (`folders.py`) or from TFDS (`tfds_source.py`); `metrics.py`
has the paper's formulas, `saliency.py` those of papers on salient objects.
"""
