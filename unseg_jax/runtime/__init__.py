"""What every stage stands on, and what knows nothing of the method.

Devices and processes (`parallel.py`), leaving in good order (`preemption.py`), results that are
whole or absent (`workdir.py`), generator files and training states (`checkpoints.py`), progress
(`progress.py`), events for TensorBoard (`tracking.py`), and pictures as arrays (`pictures.py`) and
as files (`picture_files.py`).
"""
