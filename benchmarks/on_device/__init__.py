"""The parts of `accelerator.py`, one module each: `run(report, smoke)` measures and writes rows.

`python -m on_device PART` runs one part in its own process. Open `rows.py` first: it defines rows.
"""
