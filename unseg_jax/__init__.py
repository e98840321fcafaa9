"""Unsupervised foreground segmentation from pretrained image generators, in JAX and Flax.

A reimplementation of "Finding an Unsupervised Image Segmenter in Each of Your Deep Generative
Models" (Melas-Kyriazi, Rupprecht, Laina, Vedaldi, ICLR 2022, arXiv 2105.08127).
"""

__version__ = "0.1.0"
