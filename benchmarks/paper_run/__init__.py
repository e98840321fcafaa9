"""Parts of `../paper.py`: times each stage at the paper's size, and projects the full run."""
