"""Stage 3: a U-Net that learns to find the masks from the images alone.

In: (image, mask) pairs, from disk or made on the fly. Out: checkpoints, which `Segmenter.restore`
turns into a function of a picture. Open `train.py` first, then its step (`step.py`) and `unet.py`;
`batches.py` reads pairs from disk, `data_sets.py` finds the sets of other runs to train on.
`losses.py`, `augmentation.py` and `copy_paste.py` are parts of the step, `separable.py` holds the
blurs and crops of the latter two, and `curves.py` keeps the training's history.
"""
