"""What every stage stands on, and what knows nothing of the method.

Devices and processes (`parallel.py`, `process_flags.py`), leaving in good order (`preemption.py`),
results that are whole or absent (`workdir.py`), buckets as folders (`places.py`, over `stores.py`)
and as many files that come and go (`file_trees.py`), downloads (`download.py`), generator files
(`generator_files.py`), training states (`checkpoints.py`), work on other threads (`ahead.py`),
progress (`progress.py`), events for TensorBoard (`tracking.py`), and pictures as arrays
(`pictures.py`) and as files (`picture_files.py`).
"""
