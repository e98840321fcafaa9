"""Parts of `../tpu.py`: estimates the time of a step on a TPU with its compiler."""
