"""The same networks and steps in PyTorch, for comparison.

A twin takes the weights of this package or provides its own, so that results can be compared before
timings. Without PyTorch, only `device.py` can be imported.
"""
