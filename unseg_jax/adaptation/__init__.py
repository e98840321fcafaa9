"""Stage 4 continues training on unlabelled images, with the segmenter's own masks as labels.

The input is a segmenter and images. The output is the adapted segmenter. See `adapt.py`.
"""
