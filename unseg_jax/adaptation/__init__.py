"""Stage 4: the training continues on pictures without labels, with the segmenter's own masks.

In: a segmenter and pictures. Out: the segmenter adapted to them. Open `adapt.py`.
"""
