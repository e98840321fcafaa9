"""TFDS builders of the data sets that TFDS itself does not have, from their original archives."""
