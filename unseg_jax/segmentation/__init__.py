"""Stage 3: a U-Net that learns to find the masks from the images alone.

In: (image, mask) pairs, from disk or made on the fly. Out: checkpoints, which `Segmenter.restore`
turns into a function of a picture. Open `train.py` first, then its step (`step.py`) and `unet.py`;
`batches.py` reads pairs from disk, `data_sets.py` finds the sets of other runs to train on, and
`adaptation.py` goes on with pictures that have no labels. `segmenter.py` runs a trained network on
pictures of any size (`segmenter_files.py` restores and saves one), `many.py` on many of them at a
time, and `refinement.py` may fit its answer to their edges. `onnx_export.py` and `jax_export.py`
write a segmenter for other programs, `web_export.py` for a browser, whose page is in `web/`.
"""
