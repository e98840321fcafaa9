"""Stage 4: going on with pictures that have no labels, by the segmenter's own masks of them.

In: a segmenter and pictures. Out: the segmenter adapted to them. Open `adapt.py`.
"""
