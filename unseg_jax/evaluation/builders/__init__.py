"""TFDS builders for data sets that TFDS does not include, from the original archives."""
