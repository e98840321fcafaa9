"""Stage 1 finds a latent direction that lightens the foreground and darkens the background.

The input is a generator. The output is one or two directions of unit length,
`[K, *latent_shape]`: `light`, or `light` and `dark`. Start with `search.py`, which minimises the
two losses of `losses.py` from a random direction; `step.py` is one step of it. `restarts.py` picks
the best of several searches. `previews.py` draws the effect of a direction. `results.py` writes the
directions and their previews to disk.
"""
