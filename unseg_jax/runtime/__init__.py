"""What every stage stands on, and what knows nothing of the method.

Devices and processes (`parallel.py`), leaving in good order (`preemption.py`), results that are
whole or absent (`workdir.py`), buckets as folders (`places.py`, over `stores.py`), generator files
and training states (`checkpoints.py`), progress (`progress.py`), events for TensorBoard
(`tracking.py`), and pictures as arrays (`pictures.py`) and as files (`picture_files.py`).
"""
