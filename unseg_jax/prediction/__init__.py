"""What `python -m unseg_jax.predict` does: pictures in, files out, any number of them.

In: a segmenter, and pictures in folders or buckets. Out: masks and whatever else is asked for, and
a manifest with a row for each picture. Open `run.py` first: reading, the network and encoding
side by side. `plan.py` finds the pictures and says where their outputs go, `inputs.py` says what a
picture is, `pictures.py` reads one and writes what is made of it, in threads or in worker
processes, and `outputs.py` encodes that. `manifest.py` keeps what was made, and `resuming.py` what
of it still holds, so that a run that was stopped goes on.
"""
