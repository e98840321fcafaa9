"""The parts of `accelerator.py`, a module each: `run(report, smoke)` measures and writes its rows.

`python -m on_device PART` runs one in a process of its own. Open `rows.py` first: what a row is.
"""
