"""Stage 1: a direction in latent space that lights the foreground and darkens the rest.

In: a generator. Out: directions of unit length, `[K, *latent_shape]`: `light`, or `light` and
`dark`. Open `search.py` first: it moves a random direction down the two losses of `losses.py`, step
by step (`step.py`). `restarts.py` picks one of several searches; `previews.py` shows what a
direction does; `results.py` writes both to disk.
"""
