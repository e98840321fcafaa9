"""Stage 3 trains a U-Net that predicts the masks from the images alone.

The input is (image, mask) pairs, from disk or generated on the fly. The output is checkpoints,
which `Segmenter.restore` turns into a function of an image. Start with `train.py`, then `step.py`
and `unet.py`. `batches.py` reads pairs from disk, and `data_sets.py` finds the data sets of other
runs. `losses.py`, `augmentation.py` and `copy_paste.py` are parts of a step; the last two use the
blurs and crops of `separable.py`. `curves.py` keeps the training history.
"""
