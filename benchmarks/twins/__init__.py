"""The same networks and steps in PyTorch, to be timed beside ours.

Each twin takes our weights, or gives us its own, so that the two can be checked to compute the same
before they are timed. Only `device.py` can be imported where PyTorch is not installed.
"""
