"""Stage 2 generates any number of images with masks.

The input is a generator and its directions. The output is a TFDS data set of (image, mask) records.
Start with `candidates.py`, which turns latents into images, masks (`masks.py`, `components.py`) and
filter verdicts (`filters.py`) on the device. `latents.py` reads latents from a file. `generate.py`
writes the accepted pairs to shards (`shards.py`); `acceptance.py` counts and shows them.
`on_the_fly.py` instead passes the pairs directly to training and writes nothing.
"""
