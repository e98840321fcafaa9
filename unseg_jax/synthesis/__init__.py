"""Stage 2: any number of images with masks.

In: a generator and its directions. Out: an ordinary TFDS data set of (image, mask) records.
Open `candidates.py` first: latents (`latents.py` reads them from a file) become images, and these
get masks (`masks.py`, `components.py`) and verdicts (`filters.py`), on the device. `generate.py`
keeps the accepted pairs in shards (`shards.py`); `on_the_fly.py` hands them to the training
instead, and writes nothing.
"""
